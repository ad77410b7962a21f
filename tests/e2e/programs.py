# SPDX-License-Identifier: Apache-2.0
"""One program per language for each thing that every language must be able to do."""

LANGUAGES = ("python", "javascript", "c", "cpp", "java", "bash", "go", "ruby")

HELLO = {
    "python": 'print("hello")',
    "javascript": 'console.log("hello")',
    "c": '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }',
    "cpp": '#include <iostream>\nint main() { std::cout << "hello\\n"; }',
    "java": 'public class Main { public static void main(String[] a) { System.out.println("hello"); } }',
    "bash": 'echo hello',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println("hello") }',
    "ruby": 'puts "hello"',
}

# Prints its arguments, then the file data.txt, then what it reads; one line each, and ends with 7.
ALL = {
    "python": '''
import sys
print("|".join(sys.argv[1:]))
print(open("data.txt").read().strip())
print(sys.stdin.read().strip())
sys.stderr.write("to stderr\\n")
sys.exit(7)
''',
    "javascript": '''
const fs = require("fs");
console.log(process.argv.slice(2).join("|"));
console.log(fs.readFileSync("data.txt", "utf8").trim());
console.log(fs.readFileSync(0, "utf8").trim());
console.error("to stderr");
process.exit(7);
''',
    "c": '''
#include <stdio.h>
#include <string.h>
static void copy(FILE *f) {
    char line[256];
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\\n")] = 0;
        puts(line);
    }
}
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        printf("%s%s", argv[i], i + 1 < argc ? "|" : "\\n");
    FILE *f = fopen("data.txt", "r");
    if (!f) return 1;
    copy(f);
    copy(stdin);
    fputs("to stderr\\n", stderr);
    return 7;
}
''',
    "cpp": '''
#include <fstream>
#include <iostream>
#include <string>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        std::cout << argv[i] << (i + 1 < argc ? "|" : "\\n");
    std::ifstream f("data.txt");
    std::string line;
    while (std::getline(f, line)) std::cout << line << "\\n";
    while (std::getline(std::cin, line)) std::cout << line << "\\n";
    std::cerr << "to stderr\\n";
    return 7;
}
''',
    "java": '''
import java.nio.file.*;
import java.util.*;
public class Main {
    public static void main(String[] args) throws Exception {
        System.out.println(String.join("|", args));
        System.out.println(Files.readString(Path.of("data.txt")).trim());
        System.out.println(new String(System.in.readAllBytes()).trim());
        System.err.println("to stderr");
        System.exit(7);
    }
}
''',
    "bash": '''
IFS="|"; echo "$*"
cat data.txt
cat
echo "to stderr" >&2
exit 7
''',
    "go": '''
package main
import ("fmt"; "io"; "os"; "strings")
func main() {
    fmt.Println(strings.Join(os.Args[1:], "|"))
    b, _ := os.ReadFile("data.txt")
    fmt.Println(strings.TrimSpace(string(b)))
    b, _ = io.ReadAll(os.Stdin)
    fmt.Println(strings.TrimSpace(string(b)))
    fmt.Fprintln(os.Stderr, "to stderr")
    os.Exit(7)
}
''',
    "ruby": '''
puts ARGV.join("|")
puts File.read("data.txt")
puts STDIN.read
STDERR.puts "to stderr"
exit 7
''',
}

COMPILE_ERROR = {
    "c": "int main(void) { return missing; }",
    "cpp": "int main() { return missing; }",
    "java": "public class Main { public static void main(String[] a) { int x = missing; } }",
    "go": "package main\nfunc main() { missing() }",
}
