# SPDX-License-Identifier: Apache-2.0
"""The programs that are measured; all of them print hello."""

from typing import NamedTuple

# Where a program that nobody has seen before has another number each time (bench-load --unique).
UNIQUE = "@" * 16


class Program(NamedTuple):
    language: str
    title: str
    source: str
    code: str
    key: str
    comment: str = ""  # not empty: never seen, each is another one by such a comment

    def text(self, number=None):
        """What is submitted: with a number, or with the place for one."""
        if not self.comment:
            return self.code
        return f"{self.comment} {UNIQUE if number is None else f'{number:016d}'}\n{self.code}"


C = '#include <stdio.h>\n\nint main(void)\n{\n\tputs("hello");\n\treturn 0;\n}\n'
CPP = '#include <bits/stdc++.h>\n\nint main()\n{\n\tstd::cout << "hello\\n";\n}\n'
JAVA = ('public class Main {\n    public static void main(String[] args) {\n'
        '        System.out.println("hello");\n    }\n}\n')
# Six of the standard library.
IMPORTS = 'import collections, datetime, json, math, random, re\n\nprint("hello")\n'

PROGRAMS = [
    Program("c", "C hello, compiled before", "main.c", C, "c"),
    Program("python", "Python hello", "main.py", 'print("hello")\n', "python"),
    Program("javascript", "JavaScript hello", "main.js", 'console.log("hello")\n', "javascript"),
    Program("java", "Java hello, compiled before", "Main.java", JAVA, "java"),
    Program("python", "Python, six imports", "main.py", IMPORTS, "python-imports"),
    Program("ruby", "Ruby hello", "main.rb", 'puts "hello"\n', "ruby"),
]

# Compiled each time.
UNSEEN = [
    Program("c", "C hello, never seen", "main.c", C, "c-unseen", "//"),
    Program("cpp", "C++ hello with bits/stdc++.h, never seen", "main.cpp", CPP, "cpp-unseen", "//"),
    Program("java", "Java hello, never seen", "Main.java", JAVA, "java-unseen", "//"),
]
