# SPDX-License-Identifier: Apache-2.0
"""A compile step that belongs to the attacker: a language ("c" here) whose compiler is a script of the user's, and a
javac that runs a processor of the user's. Whatever a build does or leaves instead of its product, it ends in
time, within the walls, and says what was wrong."""

import base64
import concurrent.futures
import os
import shutil
import subprocess
import tempfile
import time

import pytest

import census
import harness
from attack import MARK, text_of
from test_hostile import assert_equal, settled

BUILDER = """
name: c
title: a script that makes main
extensions: [.sh]
source: build.sh
version: {argv: [/bin/bash, --version]}
compile:
  argv: [/bin/bash, build.sh]
  produces: [main]
  limits: {cpu_ms: 2s, wall_ms: 4s, memory_bytes: 64MiB, processes: 32, output_bytes: 64KiB}
run: {argv: [./main]}
check: {hello: {code: 'cp /bin/echo main', args: [hello], stdout: "hello\\n"}}
"""
JAVA = """
name: java
title: Java with processors
extensions: [.java]
source: Main.java
version: {argv: [/usr/bin/javac, -version]}
compile:
  argv: [/usr/bin/javac, -J-XX:+UseSerialGC, -J-Xmx200m, -processor, Evil, -d, ., "{sources}"]
  produces: ["*.class"]
  limits: {cpu_ms: 6s, wall_ms: 20s, memory_bytes: 512MiB, processes: 64}
run: {argv: [/usr/bin/java, -XX:+UseSerialGC, "{stem}"], limits: {memory_bytes: 512MiB, processes: 64}}
check: {hello: {code: 'public class Main { public static void main(String[] a) { } }', stdout: ""}}
"""
CPP = """
name: cpp
title: C++ with little patience
extensions: [.cpp]
source: main.cpp
version: {argv: [/usr/bin/g++, -dumpfullversion]}
compile:
  argv: [/usr/bin/g++, -O2, -std=c++17, -o, main, "{sources}"]
  produces: [main]
  limits: {cpu_ms: 1500ms, wall_ms: 20s, memory_bytes: 256MiB}
run: {argv: [./main]}
check: {hello: {code: 'int main() { return 0; }', stdout: ""}}
"""
# The wall limit of a step is 20 s at most; the rest is what a busy machine may add.
IN_TIME_S = 40


@pytest.fixture(name="builder", scope="module")
def builder_server():
    path = tempfile.mkdtemp(prefix=f"{MARK}-test-")
    os.chmod(path, 0o755)
    languages = os.path.join(path, "languages")
    os.mkdir(languages)
    for name, text in (("c", BUILDER), ("cpp", CPP), ("java", JAVA)):
        with open(os.path.join(languages, f"{name}.yaml"), "w", encoding="utf-8") as f:
            f.write(text)
    config = {"sandbox": {"uid_base": census.UID_BASE}} if os.getuid() == 0 else {}
    server = harness.Server(path, slots=4, config=config, args=("--languages", languages)).start()
    server.run("c", "cp /bin/true main")
    yield server
    server.close()
    shutil.rmtree(path, ignore_errors=True)


GOOD = "printf '#!/bin/sh\\necho right\\n' > main; chmod 755 main\n"
# What the script does, then how it ends and what is said: by the program, or by the compile step.
BUILDS = {
    # Something else in the product's place.
    "link": ("ln -s /etc/passwd main", "compile_error", "could not take over"),
    "link-to-proc": ("ln -s /proc/self/exe main", "compile_error", "could not take over"),
    "link-to-device": ("ln -s /dev/zero main", "compile_error", "could not take over"),
    "link-to-itself": ("ln -s main main", "compile_error", "could not take over"),
    "link-through-folder": ("mkdir d; ln -s d e; cp /bin/true d/main; ln -s e/main main", "compile_error",
                            "could not take over"),
    "hard-link": ("cp /bin/true other; ln other main", "compile_error", "could not take over"),
    "fifo": ("mkfifo main", "compile_error", "could not take over"),
    "fifo-with-writer": ("mkfifo main; (yes > main) & disown", "compile_error", "could not take over"),
    "socket": ("/usr/bin/perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); "
               "bind(S, sockaddr_un(\"main\"))'", "compile_error", "could not take over"),
    "device": ("mknod main c 1 5 && echo ESCAPED; true", "compile_error", None),
    "folder": ("mkdir main", "compile_error", None),
    "folder-of-folders": ("p=main; for i in $(seq 200); do mkdir -p $p && cd $p && p=main; done", "compile_error",
                          None),
    "nothing": ("true", "compile_error", None),
    "unreadable": ("cp /bin/true main; chmod 0 main", "compile_error", "could not take over"),
    "sparse": ("truncate -s 60M main; truncate -s 60M other", {"compile_error", "runtime_error"}, None),
    "many": ("for i in $(seq 3000); do : > f$i; done\n" + GOOD, "ok", "right"),
    "long-names": ("n=$(printf 'x%.0s' $(seq 250)); for i in 1 2 3; do mkdir $n && cd $n; done; cd /box\n" + GOOD,
                   "ok", "right"),
    # A product that is not what it should be.
    "empty": (": > main; chmod 755 main", "runtime_error", None),
    "not-executable": (GOOD + "chmod 644 main", {"runtime_error", "compile_error"}, None),
    "its-own-interpreter": ("echo '#!/box/main' > main; chmod 755 main", "runtime_error", None),
    "no-interpreter": ("echo '#!/etc/shadow' > main; chmod 755 main", "runtime_error", None),
    "set-id": ("cp /usr/bin/id main; chmod 6755 main", "ok", "uid=1000"),
    "text-in-elf": ("printf '\\177ELF\\2\\1\\1' > main; chmod 755 main", {"runtime_error", "signalled"}, None),
    # Something goes on while the product is taken.
    "held-open": (GOOD + "(exec 9>>main; sleep 60) & disown", "ok", "right"),
    "mapped": (GOOD + "/usr/bin/perl -e 'open F, \"+<\", \"main\"; fork and exit; sleep 60' & disown", "ok", "right"),
    "swapped": (GOOD + "(while :; do ln -s /etc/passwd l; mv l main; printf '#!/bin/sh\\necho right\\n' > m; "
                "chmod 755 m; mv m main; done) & disown", {"ok", "compile_error"}, None),
    "ends-by-kill": (GOOD + "kill -9 -1", "compile_error", None),
    "daemon": (GOOD + "setsid nohup sleep 100 > /dev/null 2>&1 &", "ok", "right"),
    "stopped": (GOOD + "(kill -STOP $BASHPID) & disown", "ok", "right"),
    # Nothing of the compile step is there when the program runs.
    "leaves-tmp": ("echo x > /tmp/kiln-hostile; echo x > /dev/shm/kiln-hostile; echo x > other; "
                   "printf '#!/bin/sh\\nls -A /tmp /dev/shm; ls other; echo right\\n' > main; chmod 755 main", "ok",
                   "/dev/shm:\n\n/tmp:\nright"),
    "leaves-environment": ("export KILN_HOSTILE=1; echo 'export KILN_HOSTILE=1' > .profile; cp .profile .bashrc; "
                           "printf '#!/bin/bash\\nenv | grep HOSTILE; echo right\\n' > main; chmod 755 main", "ok",
                           "right"),
    # More than it may have.
    "fork-bomb": (":(){ :|:& };:\nwait; while :; do : & done", "compile_error", None),
    "memory": ("x=xxxxxxxxxxxxxxxx\nwhile :; do x=$x$x; done", "compile_error", None),
    "output": ("yes", "compile_error", None),
    "output-to-both": ("yes & yes 1>&2", "compile_error", None),
    "sleeps": ("sleep 100", "compile_error", None),
    "stops": ("kill -STOP $$", "compile_error", None),
    "computes": ("while :; do :; done", "compile_error", None),
    "disk": ("cat /dev/zero > /tmp/full; cat /dev/zero > full; true", "compile_error", None),
    "inodes": ("i=0; while : > f$i; do i=$((i + 1)); done; rm -f f*; " + GOOD, {"ok", "compile_error"}, None),
    # Out.
    "shadow": ("cat /etc/shadow && echo ESCAPED\n" + GOOD, "ok", "right"),
    "network": ("(exec 3<>/dev/tcp/1.1.1.1/80) && echo ESCAPED\n" + GOOD, "ok", "right"),
    "processes": ("[ $(ls -d /proc/[0-9]* | wc -l) -gt 8 ] && echo ESCAPED\n" + GOOD, "ok", "right"),
    "init": ("kill -9 1; cat /proc/1/environ && echo ESCAPED; ls /proc/1/fd/ && echo ESCAPED\n" + GOOD, "ok", "right"),
    "mounts": ("mount -t tmpfs x /tmp && echo ESCAPED; umount /proc && echo ESCAPED; unshare -r true && "
               "echo ESCAPED\n" + GOOD, "ok", "right"),
}


def complaint(task, outcome, says):
    """The compiler's output is that of the attacker, too. None: all is well."""
    compiled = task["compile"] or {"output": ""}
    said = text_of(task, "stdout") + text_of(task, "stderr") + text_of(compiled, "output")
    outcomes = {outcome} if isinstance(outcome, str) else outcome
    if task["status"] != "done" or task["outcome"] not in outcomes or task["attempt"] != 1:
        return f"{task['status']}, {task['outcome']}, attempt {task['attempt']}, {task['error']}: {said[-300:]!r}"
    if "ESCAPED" in said or "root:" in said:
        return f"the attack worked: {said[-300:]!r}"
    if says and says not in said:
        return f"does not say {says!r}: {said[-300:]!r}"
    return None


def run_each(server, table, submit):
    """Several at a time; those that sleep cost no more than the longest of them."""
    def one(name):
        began = time.monotonic()
        task = server.wait(submit(table[name][0]))
        wrong = complaint(task, *table[name][1:])
        if not wrong and time.monotonic() - began > IN_TIME_S:
            wrong = f"took {time.monotonic() - began:.1f} s"
        return f"{name}: {wrong}" if wrong else None

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wrong = list(filter(None, pool.map(one, table)))
    assert not wrong, "\n".join(wrong)


def test_builds(builder):
    run_each(builder, BUILDS, lambda code: builder.submit("c", code))


def test_builds_leave_nothing(builder):
    before = settled(builder)
    for name in ("fifo-with-writer", "held-open", "swapped", "daemon", "stopped", "fork-bomb", "memory"):
        builder.run("c", f"{BUILDS[name][0]} # again")
    assert_equal(builder, before)


# Programs that are small until they are compiled.

BOMBS = {
    "template-width": "template<int N, int M> struct A { static const int v = A<N - 1, 2 * M>::v + "
                      "A<N - 1, 2 * M + 1>::v; };\ntemplate<int M> struct A<0, M> { static const int v = M; };\n"
                      "int main() { return A<24, 0>::v; }\n",
    "constexpr-recursion": "constexpr long f(long n) { return n < 2 ? n : f(n - 1) + f(n - 2) + (n ^ 1); }\n"
                           "template<long N> struct A { static constexpr long v = f(N % 500) + A<N - 1>::v; };\n"
                           "template<> struct A<0> { static constexpr long v = 0; };\n"
                           "int main() { return A<800>::v; }\n",
    "constexpr-memory": "struct B { char b[1 << 28]; constexpr B() : b() { for (auto &c : b) c = 1; } };\n"
                        "constexpr B x;\nint main(int n, char **) { return x.b[n]; }\n",
    "fold": "#include <utility>\ntemplate<std::size_t... I> constexpr int f(std::index_sequence<I...>) "
            "{ return (... + int(I)); }\nint main() { return f(std::make_index_sequence<3000000>()); }\n",
    "includes": "#include <bits/stdc++.h>\n#if __INCLUDE_LEVEL__ < 190\n#include __FILE__\n#include __FILE__\n"
                "#endif\nint main() { }\n",
    "macro-argument": "#define F(x) x x x x x x x x\n#define G(x) F(F(F(F(F(F(F(F(x))))))))\n"
                      "int main() { G(G(;)) }\n",
    "macro-depth": "#define M1 x+ x+ x+ x+\n" + "".join(f"#define M{i} M{i - 1} M{i - 1} M{i - 1} M{i - 1}\n"
                                                        for i in range(2, 18)) + "int main() { int x = 0; return M17 0; }\n",
    "array": "char a[1ul << 34] = {1};\nint main() { return a[1]; }\n",
    "assembler": 'asm(".rept 1000000000\\n.quad 1\\n.endr");\nint main() { }\n',
}


def test_bombs(builder):
    table = {name: (code, "compile_error", None) for name, code in BOMBS.items()}
    run_each(builder, table, lambda code: builder.submit("cpp", code))


# A processor is Java that javac loads and runs.

PROCESSOR = """
import java.io.*;
import java.nio.file.*;
import java.util.*;
import javax.annotation.processing.*;
import javax.lang.model.element.*;

@SupportedAnnotationTypes("*")
public class Evil extends AbstractProcessor {
    static boolean done;
    static void sh(String script) throws Exception {
        new ProcessBuilder("/bin/sh", "-c", script).inheritIO().start().waitFor();
    }
    void act(String which) throws Throwable {
        switch (which) {
CASES
        }
    }
    public boolean process(Set<? extends TypeElement> all, RoundEnvironment round) {
        if (done) return false;
        done = true;
        try { act(Files.readString(Path.of("which"))); }
        catch (Throwable t) { System.err.println("refused: " + t); }
        return false;
    }
}
"""
MAIN = 'public class Main { public static void main(String[] a) { System.out.println("right"); } }'
PROCESSORS = {
    "prints": ('System.err.println("it ran");', "ok", "right"),
    "reads": ('System.err.println("ESCAPED " + Files.readString(Path.of("/etc/shadow")));', "ok", "refused:"),
    "connects": ('new java.net.Socket("1.1.1.1", 80); System.err.println("ESCAPED");', "ok", "refused:"),
    "for-ever": ("while (!which.isEmpty()) { }", "compile_error", None),
    "sleeps": ("Thread.sleep(1000000);", "compile_error", None),
    "memory": ("List<byte[]> l = new ArrayList<>(); while (!which.isEmpty()) l.add(new byte[1 << 20]);",
               {"ok", "compile_error"}, None),
    "floods": ('while (!which.isEmpty()) System.out.println("flood ".repeat(1000));', "compile_error", None),
    "daemon": ('sh("setsid sleep 100 & exit 0");', "ok", "right"),
    "exits": ("Runtime.getRuntime().halt(0);", {"runtime_error", "compile_error"}, None),
    "link": ('sh("ln -s /etc/passwd Link.class; mkfifo Fifo.class; mkdir Folder.class");', "compile_error",
             "could not take over"),
    "replaces-later": ('sh("(while :; do rm -f Main.class; mkfifo Main.class; done) &");',
                       {"ok", "compile_error", "runtime_error"}, None),
    "writes-source": ('try (Writer w = processingEnv.getFiler().createSourceFile("Made").openWriter()) { '
                      'w.write("class Made { int x = ; }"); }', "compile_error", None),
}


def processor():
    """Compiled once, with all of them in it: a file says which."""
    cases = "".join(f'case "{name}": {{ {body} }} break;\n' for name, (body, *_) in PROCESSORS.items())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "Evil.java")
        with open(path, "w", encoding="utf-8") as f:
            f.write(PROCESSOR.replace("CASES", cases))
        subprocess.run(["/usr/bin/javac", "-proc:none", "-d", folder, path], check=True)
        with open(os.path.join(folder, "Evil.class"), "rb") as f:
            content = base64.b64encode(f.read()).decode()
    return {"name": "Evil.class", "content": content, "encoding": "base64"}


def test_processors(builder):
    evil = processor()
    table = {name: (name, *rest) for name, (_, *rest) in PROCESSORS.items()}
    run_each(builder, table, lambda name: builder.submit("java", MAIN, files=[
        evil, {"name": "which", "content": name}]))


def test_processors_do_not_run_by_themselves(server):
    """With Java as it comes. Where javac would look for their names cannot even be submitted."""
    files = [processor(), {"name": "which", "content": "prints"},
             {"name": "javax.annotation.processing.Processor", "content": "Evil\n"}]
    task = server.run("java", MAIN, files=files)
    assert not complaint(task, "ok", "right") and "it ran" not in task["compile"]["output"], task
    files[2]["name"] = "META-INF/services/javax.annotation.processing.Processor"
    assert server.post("/submit", {"language": "java", "code": MAIN, "files": files}).status == 400


# Names of files.

@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a/../../x", ".", "..", "", "a\0b", "a\nb", "a\x1b[2Jb",
                                  "x" * 256, "main.py"])
def test_bad_name_is_refused(server, name):
    answer = server.post("/submit", {"language": "python", "code": "print(1)",
                                     "files": [{"name": name, "content": "x"}]})
    assert answer.status in (400, 422) and answer.json["field"], (name, answer)


@pytest.mark.parametrize("name", ["-rf", "--version", "*", "$(id)", "a b", "..x", "x..", "~", "#", "é", "\u202etxt.exe",
                                  "x" * 200, "con", ".bashrc", "sitecustomize.txt", "core", "main", "%s%n"])
def test_odd_name_is_a_name(server, name):
    code = "import os\nprint(sorted(os.listdir('.')) == sorted(['main.py', %r]), open(%r).read())" % (name, name)
    answer = server.post("/submit", {"language": "python", "code": code,
                                     "files": [{"name": name, "content": "inside"}]})
    if answer.status in (400, 422):  # refused by name is right as well
        assert answer.json["field"], answer
        return
    assert server.wait(answer.json["task_id"])["stdout"] == "True inside\n", name


@pytest.mark.parametrize("language, code, names", [
    ("c", "int main(void) { return 0; }", ["cc1", "as", "ld", "collect2", "gcc", "specs", "stdio.h",
                                             "main.o", "a.out", "libm.so"]),
    ("python", "import json\nprint('right')", ["python3", "pyvenv.cfg", "python311._pth", "ld.so.preload"]),
    ("bash", "ls > /dev/null; echo right", ["ls", ".bash_profile", ".inputrc", "bash"]),
])
def test_names_of_tools_are_only_files(server, language, code, names):
    """What lies in the work directory is not taken for a part of the toolchain."""
    files = [{"name": n, "content": "#!/bin/sh\necho ESCAPED >&2\necho ESCAPED\n"} for n in names]
    assert not complaint(server.run(language, code, files=files), "ok", None)
