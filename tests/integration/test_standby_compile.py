# SPDX-License-Identifier: Apache-2.0
"""A compiler that stands by: the same diagnostics, exit codes and classes as the plain one, within the same limits."""

import os
import subprocess

import pytest

import runner as r
import test_standby
from test_standby import LIMITS, MIB, wait_for

place = test_standby.place  # fixtures
start = test_standby.start

COMPILE = {"memory_bytes": 1024 * MIB, "processes": 128}
# Prints what came of the compile step: each class, byte by byte.
MAIN = """import java.nio.file.*; import java.security.*; import java.util.*;
public class Main { public static void main(String[] args) throws Exception {
  try (var all = Files.walk(Path.of("."))) { for (Path p : (Iterable<Path>) all.filter(p -> p.toString().endsWith(".class")).sorted()::iterator)
    System.out.println(p + " " + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(p)))); } } }
"""
RIGHT = {
    "nothing more": {},
    "empty file": {"E.java": ""},
    "class": {"A.java": "class A { int x = 1; }"},
    "package": {"p/q/A.java": "package p.q; public class A { }"},
    "two that need each other": {"A.java": "class A { B b; }", "B.java": "class B { A a; }"},
    "lambdas": {"A.java": "import java.util.function.*; class A { Supplier<Runnable> s = () -> () -> { int y = 1; }; }"},
    "generics": {"A.java": "import java.util.*; class A<T extends Comparable<T>> { <R> Map<T, List<? super R>> f(R r) { return null; } }"},
    "records": {"A.java": "record A<T>(T t, int... n) { A { if (t == null) throw new NullPointerException(); } }"},
    "sealed": {"A.java": "sealed interface A permits B, C { } final class B implements A { } non-sealed class C implements A { }"},
    "switch": {"A.java": "class A { int f(Object o, E e) { if (o instanceof String s && s.length() > 2) return 1; return switch (e) { case X -> 1; case Y -> { yield 2; } }; } enum E { X, Y } }"},
    "text block": {"A.java": 'class A { String s = """\n   a "b" \\\n   c\n  """; }'},
    "inner classes": {"A.java": "class A { class B { class C { int n = x; } } int x; Object o = new Object() { int y = x; }; static class D { } }"},
    "try with resources": {"A.java": "class A { void f() throws Exception { try (var in = new java.io.StringReader(\"x\")) { in.read(); } finally { f(); } } }"},
    "annotations": {"A.java": "import java.lang.annotation.*; @Retention(RetentionPolicy.RUNTIME) @interface A { int[] value() default {1, 2}; } @A(3) class B { @Deprecated void f() { } }"},
    "unicode": {"Ž.java": "class Ž { String é = \"日本語 ✓ \\u0041\"; }"},
    "constants": {"A.java": "class A { static final long L = 1L << 40; static final String S = \"a\" + L + 'c'; double d = 0x1p-3; char c = '\\u0000'; }"},
    "long string": {"A.java": f"class A {{ String s = \"{'x' * 60000}\"; }}"},
    "many methods": {"A.java": "class A { " + "".join(f"int f{i}(int x) {{ return x + {i}; }} " for i in range(500)) + "}"},
    "warns of deprecated": {"A.java": "class A { void f() { Thread.currentThread().stop(); new Integer(5); } }"},
    "warns of unchecked": {"A.java": "import java.util.*; class A { List<String> f(List l) { return l; } }"},
    "warns of removal": {"A.java": "class A { void f() { System.getSecurityManager(); } }"},
    "modules of the JDK": {"A.java": "import java.sql.*; import javax.swing.*; import java.net.http.*; class A { Connection c; JFrame f; HttpClient h; }"},
    "classes that came along": {"data/x.txt": "text", "B.class": "no class"},
    "taken name": {"KilnGiven.java": "public class KilnGiven { static int await() { return 1; } }", "A.java": "class A { int x = KilnGiven.await(); }"},
    "taken name of the compiler": {"KilnCompiler.java": "class KilnCompiler { }"},
    "file is a folder's name": {"A.java/B.java": "class B { }"},
    "processor is not run": {"META-INF/services/javax.annotation.processing.Processor": "Evil"},
}
WRONG = {
    "missing symbol": {"A.java": "class A { int x = y; }"},
    "missing method": {"A.java": "class A { void f() { g(1, \"x\"); \"s\".nope(); } }"},
    "missing class": {"A.java": "class A extends Nope<String> { }"},
    "missing package": {"A.java": "import nope.*; import java.util.Nope; class A { }"},
    "kiln's classes are not there": {"A.java": "class A { Object o = KilnGiven.class; Object p = new KilnCompiler(); }"},
    "types": {"A.java": "class A { int x = \"s\"; String s = 1; boolean b = 1 + true; }"},
    "loses precision": {"A.java": "class A { int x = 1L; byte b = 300; float f = 1.0; }"},
    "syntax": {"A.java": "class A { void f() { int x = ; } }"},
    "unclosed": {"A.java": "class A { void f() { if (true) {"},
    "unclosed string": {"A.java": "class A { String s = \"x; }"},
    "unclosed comment": {"A.java": "class A { /* }"},
    "not a statement": {"A.java": "class A { void f() { 1 + 2; } }"},
    "garbage": {"A.java": "\x01\x02 )(*&^ klass"},
    "no utf-8": {"A.java": b"class A { String s = \"\xff\xfe\"; }"},
    "public in another file": {"A.java": "public class B { }"},
    "twice": {"A.java": "class A { int x; int x; void f() { } void f() { } }", "B.java": "class A { }"},
    "unreachable": {"A.java": "class A { int f() { return 1; int x = 2; } }"},
    "no return": {"A.java": "class A { int f() { } }"},
    "not initialised": {"A.java": "class A { int f() { int x; return x; } }"},
    "final": {"A.java": "class A { final int x = 1; void f() { x = 2; } }"},
    "unreported exception": {"A.java": "class A { void f() { throw new Exception(); } }"},
    "caught in vain": {"A.java": "class A { void f() { try { } catch (java.io.IOException e) { } } }"},
    "abstract": {"A.java": "abstract class A { abstract void f(); } class B extends A { } class C { A a = new A(); }"},
    "access": {"A.java": "class A { private int x; } class B { int y = new A().x; }"},
    "cyclic": {"A.java": "class A extends B { } class B extends A { }"},
    "generic bounds": {"A.java": "class A<T extends Number> { A<String> a; }"},
    "inference": {"A.java": "import java.util.*; class A { List<Integer> l = List.of(\"a\", 'b'); var x = null; }"},
    "switch is not whole": {"A.java": "class A { enum E { X, Y } int f(E e) { return switch (e) { case X -> 1; }; } }"},
    "sealed": {"A.java": "sealed interface A permits B { } final class B implements A { } final class C implements A { }"},
    "module": {"A.java": "import sun.misc.Unsafe; import jdk.internal.misc.VM; class A { }"},
    "compiler's own classes": {"A.java": "class A { com.sun.tools.javac.main.Main m; }"},
    "more than a hundred": {"A.java": "class A { " + "".join(f"int x{i} = y{i}; " for i in range(150)) + "}"},
    "too big a method": {"A.java": "class A { void f() { int x; " + "x = 123456; x = 7 * 8; " * 20000 + "} }"},
    "too long a constant": {"A.java": f"class A {{ String s = \"{'x' * 70000}\"; }}"},
    "warnings with errors": {"A.java": "import java.util.*; class A { List<String> f(List l) { new Integer(1); return y; } }"},
    "messages in order": {"Z.java": "class Z { int x = 1L; }", "A.java": "class A { int x = 1L; }", "M.java": "class M { int x = ; }"},
    "module-info": {"module-info.java": "module m { requires nope; }"},
}


def some(programs):
    """All of them, of which a run that is short of time takes every fourth: each has a JVM start for it."""
    return [pytest.param(name, marks=[pytest.mark.long] if i % 4 else []) for i, name in enumerate(programs)]


@pytest.fixture(scope="module")
def compiler(start):
    """Without a cache, so that everything is compiled."""
    return start("--compile-cache-bytes", "0", languages=("java",), slots=2)


def compilers(one):
    """Those of a runner that wait, or boot."""
    found = subprocess.run(["pgrep", "-f", "^/usr/bin/java .* KilnCompiler$"], check=False, stdout=subprocess.PIPE,
                           text=True).stdout.split()
    return {int(pid) for pid in found if test_standby.is_below(int(pid), one.process.pid)}


def account(one):
    """What stands by, ready, for the compile step."""
    before = one.log_text().count('"account"')
    os.kill(one.process.pid, test_standby.signal.SIGUSR1)
    wait_for(lambda: one.log_text().count('"account"') > before)
    last = one.log_text().split('"account"')[-2].splitlines()
    return [line for line in last if '"compile"' in line and '"ready"' in line]


def warm_compile(one, **task):
    """By one that stood by: it is there before, and gone after."""
    for _ in range(5):
        wait_for(lambda: account(one) or not one.run("java", MAIN, limits=LIMITS, compile_limits=COMPILE))
        before = compilers(one)
        result = one.run("java", **task)
        if before - compilers(one):
            return result
    raise AssertionError(one.log_text())


def both(one, files, **more):
    task = {"files": {"Main.java": MAIN.encode()} |
            {name: text.encode() if isinstance(text, str) else text for name, text in files.items()},
            "entry": "Main.java", "limits": LIMITS, "compile_limits": COMPILE | more}
    cold = one.run("java", cold=True, **task)
    return cold, warm_compile(one, **task)


def told(result):
    c = result.compiled
    return c["exit_code"], c["limit_hit"], c["output_truncated"], c["output"].decode(errors="replace")


@pytest.mark.parametrize("name", some(RIGHT))
def test_right_programs_are_compiled_the_same(compiler, name):
    cold, warm = both(compiler, RIGHT[name])
    assert told(cold)[0] == 0, told(cold)
    assert told(cold) == told(warm)
    assert b"Main.class" in cold.stdout and cold.stdout == warm.stdout


def test_program_that_is_too_deep_is_refused_the_same(compiler):
    """But for where in the compiler the stack ended, which no two runs have in common."""
    cold, warm = both(compiler, {"A.java": "class A { int x = " + "(" * 20000 + "1" + ")" * 20000 + "; }"})
    assert "\njava.lang.StackOverflowError\n" in told(cold)[3]
    cut = [(*t[:3], t[3].split("StackOverflowError")[0]) for t in (told(cold), told(warm))]
    assert cut[0] == cut[1] and cut[0][0] == 3


@pytest.mark.parametrize("name", some(WRONG))
def test_wrong_programs_are_refused_the_same(compiler, name):
    cold, warm = both(compiler, WRONG[name])
    assert told(cold)[0] not in (0, None) and told(cold)[3], told(cold)
    assert told(cold) == told(warm)
    assert not cold.runs and not warm.runs


def test_limits_are_those_of_the_step(compiler):
    cold, warm = both(compiler, WRONG["more than a hundred"], output_bytes=100)
    assert told(cold) == told(warm) and r.LIMITS[cold.compiled["limit_hit"]] == "output"
    deep = {"A.java": "class A { int f(int x) { return " + " ".join(f"x > {i} ? {i} :" for i in range(3000)) + " 0; } }"}
    cold, warm = both(compiler, deep, cpu_ms=300)
    assert r.LIMITS[cold.compiled["limit_hit"]] == "cpu"


def test_time_that_it_waited_is_not_the_tasks(compiler):
    """Its start costs more than all of a fresh compiler: were it counted, no try could be cheaper."""
    for _ in range(4):
        cold, warm = both(compiler, RIGHT["lambdas"])
        if warm.compiled["usage"]["cpu_us"] < cold.compiled["usage"]["cpu_us"]:
            return
    pytest.fail("a compiler that stood by was charged more than a fresh one each time")


def test_one_that_dies_costs_no_task(compiler):
    for _ in range(3):
        wait_for(lambda: account(compiler))
        for pid in compilers(compiler):
            os.kill(pid, test_standby.signal.SIGKILL)
        result = compiler.run("java", MAIN, limits=LIMITS, compile_limits=COMPILE)
        assert told(result)[0] == 0 and b"Main.class" in result.stdout and not result.done["error_code"]
