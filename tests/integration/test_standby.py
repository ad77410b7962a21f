# SPDX-License-Identifier: Apache-2.0
"""Interpreters that stand by: every program does the same with and without, and who may have one."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import runner as r

ROOT = os.geteuid() == 0
MIB = 1 << 20
LIMITS = {"memory_bytes": 512 * MIB, "processes": 128}


@pytest.fixture(scope="module")
def place():
    path = tempfile.mkdtemp(prefix="kiln-standby-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def start(place):
    started = []

    def make(*args, languages=("javascript",), **more):
        folder = r.copy_languages(*languages)
        user = ("--user", "64777:64777") if ROOT else ()
        one = r.Runner("--setup-dir", os.path.join(place, "setup"), "--standby-bytes", "268435456",
                       *user, *args, languages=folder,
                       **more)
        started.append((one, folder))
        wait_for(lambda: all(any(name.startswith(language + "-") for name in
                                 os.listdir(os.path.join(place, "setup")))
                             for language in languages if language in ("javascript", "java")), 300)
        return one

    yield make
    for one, folder in started:
        if one.process.poll() is None:
            log = one.log_text()
            assert one.close() == 0, log
            assert "ERROR: " not in log and "runtime error" not in log, log
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared(start):
    return start(slots=2)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def warm_run(one, language, code, seconds=30, **more):
    """Until a standby had it; those that boot meanwhile are waited for."""
    end = time.monotonic() + seconds
    while True:
        result = one.run(language, code, **more)
        if result.done["standby"] == "exec":
            return result
        assert time.monotonic() < end, (result.done, one.log_text())
        time.sleep(0.15)


def warm_after(seconds, one, language, code, **more):
    """One that a standby had which stood by for so long, unless the machine boots it no sooner."""
    for _ in range(10):
        time.sleep(seconds)
        result = one.run(language, code, **more)
        if result.done["standby"] == "exec":
            return result
    raise AssertionError((result.done, one.log_text()))


def seen(result):
    """All that a user sees, but for times and the sizes of things."""
    return (result.run["outcome"], result.run["exit_code"], result.run["signal"],
            result.run["limit_hit"], result.stdout, result.stderr)


JS = {
    "hello": 'console.log("hello")',
    "nothing": "",
    "only a comment": "// nothing",
    "syntax error": "let x = ;",
    "throws": 'throw new Error("no")',
    "throws a text": 'throw "text"',
    "throws in a function": "function deep(n) { if (!n) throw new TypeError('deep'); deep(n - 1); }\ndeep(20)",
    "throws later": "setTimeout(() => { throw new RangeError('later') }, 5)",
    "rejects": "Promise.reject(new Error('rejected'))",
    "rejects in async": "(async () => { await null; throw new Error('async') })()",
    "exit": "process.exit(3)",
    "exitCode": "process.exitCode = 7",
    "exit in a timer": "setTimeout(() => process.exit(4), 5); setInterval(() => {}, 1000)",
    "exit events": "process.on('exit', c => console.log('exit', c)); process.on('beforeExit', () => console.log('before'))",
    "abort": "process.abort()",
    "kill": "process.kill(process.pid, 'SIGKILL'); setTimeout(() => {}, 10000)",
    "sigterm": "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 10000)",
    "sigterm handled": "process.on('SIGTERM', () => { console.log('got'); process.exit(9) }); process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 10000)",
    "argv": "console.log(process.argv, process.argv0, process.execArgv, process.execPath)",
    "title": "console.log(process.title)",
    "names": "console.log(__filename, __dirname, process.cwd())",
    "main": "console.log(require.main === module, module.id, module.filename, module.loaded, module.parent, module.children, module.paths)",
    "mainModule": "console.log(process.mainModule === module)",
    "require cache": "console.log(Object.keys(require.cache))",
    "preload": "console.log(process._preload_modules)",
    "stack": "console.log(new Error('x').stack)",
    "stack limit": "Error.stackTraceLimit = 100; console.log(new Error('x').stack)",
    "console.trace": "console.trace('here')",
    "this": "console.log(this === module.exports, typeof globalThis, Object.keys(globalThis))",
    "global names": "console.log(Object.getOwnPropertyNames(globalThis).sort().join())",
    "process names": "console.log(Object.getOwnPropertyNames(process).sort().join())",
    "environment": "console.log(JSON.stringify(process.env, Object.keys(process.env).sort()))",
    "versions": "console.log(process.version, process.arch, process.platform, process.release.name)",
    "user": "console.log(process.getuid(), process.getgid(), require('os').userInfo().username)",
    "umask": "console.log(process.umask())",
    "files": "const fs = require('fs'); console.log(fs.readdirSync('.'), fs.statSync('main.js').mode.toString(8), fs.statSync('main.js').uid, fs.readFileSync('data/x.txt', 'utf8'), fs.statSync('data').mode.toString(8))",
    "file of its own": "console.log(require('./lib.js').twice(21))",
    "json": "console.log(require('./package-data.json').a)",
    "missing module": "require('nope')",
    "missing file": "require('./nope.js')",
    "descriptors": "console.log(require('fs').readdirSync('/proc/self/fd').filter(n => { try { return require('fs').readlinkSync('/proc/self/fd/' + n).startsWith('pipe') } catch { return false } }))",
    "next descriptor": "console.log(require('fs').openSync('main.js') < 62)",
    "given is closed": "try { require('fs').fstatSync(63); console.log('open') } catch (e) { console.log(e.code) }",
    "ready is closed": "try { require('fs').fstatSync(62); console.log('open') } catch (e) { console.log(e.code) }",
    "stdin whole": "console.log(JSON.stringify(require('fs').readFileSync(0, 'utf8')))",
    "stdin stream": "let n = 0; process.stdin.on('data', d => n += d.length).on('end', () => console.log(n))",
    "stdin lines": "require('readline').createInterface({ input: process.stdin }).on('line', l => console.log('[' + l + ']')).on('close', () => console.log('end'))",
    "stdin for await": "(async () => { for await (const c of process.stdin) console.log(c.toString()) })()",
    "stdin kind": "const s = require('fs').fstatSync(0); console.log(s.isFIFO(), process.stdin.isTTY, process.stdin.fd)",
    "stdout kind": "console.log(process.stdout.isTTY, process.stdout.writable, process.stdout.constructor.name, process.stdout.writableHighWaterMark)",
    "stdout flags": "console.log(require('fs').readFileSync('/proc/self/fdinfo/1', 'utf8').split('\\n')[1])",
    "child sees blocking stdout": "require('child_process').execSync('grep flags /proc/self/fdinfo/1', { stdio: 'inherit' })",
    "stderr": "console.error('err'); process.stderr.write('more\\n')",
    "unbuffered": "for (let i = 0; i < 5; i++) { process.stdout.write('o' + i); process.stderr.write('e' + i) }",
    "much output": "process.stdout.write('x'.repeat(300000) + '\\n')",
    # Without the callback how much comes is left to chance, in any node.
    "much output, then exit": "process.stdout.write('y'.repeat(300000), () => process.exit(0))",
    "recursion": "let n = 0; (function f() { n++; f() }).call.length; try { (function f() { n++; f() })() } catch (e) { console.log(e instanceof RangeError, n > 5000) }",
    "big recursion error": "(function f() { f() })()",
    "big array": "console.log(new Array(1e6).fill(1).reduce((a, b) => a + b))",
    "timers": "setImmediate(() => { console.log(1); setTimeout(() => console.log(2), 10) }); process.nextTick(() => console.log(0))",
    "microtasks": "Promise.resolve().then(() => console.log('then')); queueMicrotask(() => console.log('micro')); console.log('sync')",
    "worker": "const { Worker, isMainThread } = require('worker_threads'); if (isMainThread) new Worker(__filename).on('message', m => console.log(m)).on('exit', c => console.log('exit', c)); else require('worker_threads').parentPort.postMessage([process.argv, process.execArgv, Object.keys(require.cache), require.main === module])",
    "worker with eval": "new (require('worker_threads').Worker)('console.log(1 + 1, process.execArgv)', { eval: true })",
    "fork": "if (process.argv[2] === 'child') { console.log(process.execArgv, process.argv); } else { require('child_process').fork(__filename, ['child']) }",
    "exec": "console.log(require('child_process').execSync('echo sub; pwd').toString())",
    "spawn": "require('child_process').spawn('cat', { stdio: 'inherit' }).on('exit', (c, s) => console.log(c, s))",
    "exec node": "console.log(require('child_process').execFileSync(process.execPath, ['-p', 'process.argv.length']).toString())",
    "dynamic import": "import('./mod.mjs').then(m => console.log(m.three, m.url))",
    "import of fs": "import('fs').then(m => console.log(typeof m.readFileSync))",
    "missing import": "import('./nope.mjs').catch(e => console.log(e.code, e.message))",
    "esm syntax": "import fs from 'fs'; console.log(1)",
    "top level await": "await null",
    "strict": "'use strict'; try { undefinedName = 1 } catch (e) { console.log(e.message) }",
    "sloppy": "undefinedName = 1; console.log(globalThis.undefinedName)",
    "regexp statics": "console.log(JSON.stringify([RegExp.$1, RegExp.lastMatch, RegExp.input]))",
    "intl": "console.log(new Intl.NumberFormat('de').format(1234.5), new Date(0).toLocaleString('en-GB', { timeZone: 'UTC' }))",
    "time zone": "console.log(Intl.DateTimeFormat().resolvedOptions().timeZone, new Date(0).getTimezoneOffset())",
    "unicode": "console.log('žluťoučký 日本語 ✓', Buffer.from('✓').toString('hex'))",
    "bytes": "process.stdout.write(Buffer.from([0, 255, 128, 10]))",
    "util.inspect": "console.log({ a: [1, { b: new Map([[1, 2]]) }], f() {}, s: Symbol('x'), d: new Date(0), r: /x/g, e: [ , 1] })",
    "console.table": "console.table([{ a: 1, b: 2 }])",
    "console.dir": "console.dir({ a: { b: { c: { d: 1 } } } }, { depth: 0 })",
    "assert": "require('assert').strictEqual(1, 2)",
    "assert deep": "require('assert').deepStrictEqual({ a: 1 }, { a: 2 })",
    "deprecation": "new Buffer(1)",
    "warning": "process.emitWarning('careful')",
    "unhandled hook": "process.on('unhandledRejection', e => console.log('hook', e.message)); Promise.reject(new Error('r'))",
    "uncaught hook": "process.on('uncaughtException', (e, o) => console.log('hook', e.message, o)); throw new Error('u')",
    "listeners": "console.log(process.eventNames(), process.listenerCount('exit'), process.listenerCount('SIGTERM'))",
    "handles": "const h = process._getActiveHandles(); console.log(h.length, process._getActiveRequests().length, process.getActiveResourcesInfo(), h.map(x => x && x.fd))",
    "async hooks": "console.log(require('async_hooks').executionAsyncId() > 0)",
    "vm": "console.log(require('vm').runInNewContext('a + 1', { a: 1 }))",
    "eval": "console.log(eval('1 + 1'), new Function('a', 'return a * 2')(4))",
    "eval stack": "eval(\"throw new Error('in eval')\")",
    "crypto": "console.log(require('crypto').createHash('sha256').update('x').digest('hex'))",
    "zlib": "console.log(require('zlib').gunzipSync(require('zlib').gzipSync('x')).toString())",
    "generators": "function* g() { yield* [1, 2] } console.log([...g()])",
    "weak": "console.log(new WeakRef({}).deref() !== undefined)",
    "bigint": "console.log(2n ** 100n)",
    "atomics": "console.log(Atomics.add(new Int32Array(new SharedArrayBuffer(4)), 0, 1))",
    "wasm": "console.log(WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])))",
    "fetch is there": "console.log(typeof fetch, typeof structuredClone, typeof Blob, typeof performance.now)",
    "network": "fetch('http://127.0.0.1:1').catch(e => console.log(e.message))",
    "dns": "require('dns').lookup('localhost', (e, a) => console.log(e && e.code, a))",
    "server": "const s = require('net').createServer(c => c.end('bye')).listen(0, '127.0.0.1', () => require('net').connect(s.address().port, '127.0.0.1').on('data', d => { console.log(String(d)); s.close() }))",
    "write file": "const fs = require('fs'); fs.writeFileSync('out.txt', 'x'); console.log(fs.statSync('out.txt').mode.toString(8), fs.readFileSync('out.txt', 'utf8'))",
    "setup is read-only": "try { require('fs').writeFileSync('/setup/x', 'x') } catch (e) { console.log(e.code) }",
    "cwd": "process.chdir('/tmp'); console.log(process.cwd())",
    "memory": "const b = []; for (;;) b.push(Buffer.alloc(1 << 20, 1))",
    "heap": "console.log(require('v8').getHeapStatistics().heap_size_limit)",
    "cpu": "for (;;) {}",
    "shebang": "#!/usr/bin/env node\nconsole.log('shebang')",
    "bom": "\ufeffconsole.log('bom')",
    "crlf": "console.log('a')\r\nconsole.log('b')\r\n",
    "return": "console.log('before'); return; console.log('after')",
    "exports": "exports.a = 1; console.log(module.exports)",
    "source map comment": "throw new Error('mapped')\n//# sourceMappingURL=nope.map",
    "json output": "console.log(JSON.stringify({ a: 1, b: [1, 2] }, null, 2))",
    "classes": "class A { #x = 1; static s = 2; get x() { return this.#x } } console.log(new A().x, A.s, new A())",
    "error cause": "throw new Error('outer', { cause: new Error('inner') })",
    "aggregate": "Promise.any([Promise.reject(new Error('a'))]).catch(e => { throw e })",
    "custom error": "class MyError extends Error { constructor(m) { super(m); this.name = 'MyError'; this.code = 5 } } throw new MyError('mine')",
    "null": "null.x",
    "prepareStackTrace": "Error.prepareStackTrace = (e, s) => s.map(c => c.getFileName() + ':' + c.getLineNumber()).join('|'); console.log(new Error('x').stack)",
    "modules builtin": "console.log(require('module').builtinModules.length, require('module')._pathCache === undefined)",
    "resolve": "console.log(require.resolve('./lib.js'), require.resolve.paths('x'))",
    "extensions": "console.log(Object.keys(require.extensions))",
    "sleep": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20); console.log('slept')",
}
JS_FILES = {
    "lib.js": b"exports.twice = x => 2 * x;",
    "mod.mjs": b"export const three = 3; export const url = import.meta.url;",
    "package-data.json": b'{"a": [1, 2]}',
    "data/x.txt": b"text",
}
JS_LIMITS = {"memory": {"memory_bytes": 128 * MIB}, "cpu": {"cpu_ms": 500}}


def normal(text):
    """Without what differs from run to run anyway: process ids, addresses, identity hashes, who is
    killed first; and the numbers of lambda classes, which docs/LANGUAGES.md names."""
    return re.sub(rb"\(node:\d+\)|0x[0-9a-f]+|pid \d+|@[0-9a-f]+|Lambda\$\d+|Killed\n", b"", text)


@pytest.mark.parametrize("name", list(JS))
def test_javascript_is_the_same(shared, name):
    task = {"files": JS_FILES, "stdin": b"one\ntwo\n", "args": ["a", "b c", ""], "entry": "main.js",
            "limits": LIMITS | JS_LIMITS.get(name, {})}
    cold = shared.run("javascript", JS[name], cold=True, **task)
    assert cold.done["standby"] in ("sandbox", "none")
    warm = warm_run(shared, "javascript", JS[name], **task)
    plain, other = seen(cold), seen(warm)
    assert plain[:4] == other[:4], (plain, other)
    assert [normal(t) for t in plain[4:]] == [normal(t) for t in other[4:]]


def java(body, more=""):
    return "import java.io.*; import java.util.*; import java.util.function.*; import java.util.stream.*;\n" \
           f"public class Main {{ {more} public static void main(String[] args) throws Exception {{\n{body}\n}} }}"


JAVA = {
    "hello": java('System.out.println("hello");'),
    "nothing": java(""),
    "throws": java('throw new IllegalStateException("no");'),
    "throws deep": java("deep(5);", "static void deep(int n) { if (n == 0) throw new Error(\"deep\"); deep(n - 1); }"),
    "cause": java('try { Integer.parseInt("x"); } catch (Exception e) { throw new RuntimeException("outer", e); }'),
    "exit": java("System.exit(3);"),
    "halt": java("Runtime.getRuntime().halt(4);"),
    "hook": java('Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook"))); System.exit(5);'),
    "stdin scanner": java("Scanner in = new Scanner(System.in); while (in.hasNext()) System.out.println(in.next());"),
    "stdin reader": java('BufferedReader r = new BufferedReader(new InputStreamReader(System.in)); for (String l; (l = r.readLine()) != null;) System.out.println("[" + l + "]");'),
    "stdin bytes": java("System.out.println(System.in.readAllBytes().length);"),
    "stdin available": java("Thread.sleep(100); System.out.println(System.in.available());"),
    "stderr": java('System.out.println("out"); System.err.println("err");'),
    "print": java('System.out.print("a"); System.out.printf("%5.2f|%s%n", 1.5, List.of(1)); System.out.write(65); System.out.flush();'),
    "much": java('for (int i = 0; i < 50000; i++) System.out.println(i);'),
    "unicode": java('System.out.println("žluťoučký 日本語 ✓ " + "日本".length());'),
    "charset": java("System.out.println(java.nio.charset.Charset.defaultCharset() + \" \" + Locale.getDefault() + \" \" + System.getProperty(\"sun.stdout.encoding\") + TimeZone.getDefault().getID());"),
    "properties": java('for (String k : new TreeSet<>(System.getProperties().stringPropertyNames())) System.out.println(k + "=" + System.getProperty(k));'),
    "environment": java("System.out.println(new TreeMap<>(System.getenv()));"),
    "class path": java('System.out.println(System.getProperty("java.class.path") + Main.class.getClassLoader().getClass() + Main.class.getProtectionDomain().getCodeSource().getLocation());'),
    "class loaders": java("System.out.println(ClassLoader.getSystemClassLoader().getName() + Main.class.getModule() + Main.class.getPackageName());"),
    "modules": java("System.out.println(ModuleLayer.boot().modules().stream().map(Module::getName).sorted().toList());"),
    "command": java('System.out.println(System.getProperty("sun.java.command"));'),
    "thread": java("System.out.println(Thread.currentThread() + \" \" + Thread.currentThread().getId() + Thread.currentThread().getContextClassLoader().getName());"),
    "new thread": java("Thread t = new Thread(() -> System.out.println(Thread.currentThread().getName())); t.start(); t.join();"),
    "threads": java("System.out.println(Thread.getAllStackTraces().keySet().stream().map(Thread::getName).sorted().toList());"),
    "thread throws": java('Thread t = new Thread(() -> { throw new Error("in thread"); }); t.start(); t.join();'),
    "daemon": java("Thread t = new Thread(() -> { for (;;) ; }); t.setDaemon(true); t.start();"),
    "pool": java("var p = java.util.concurrent.Executors.newFixedThreadPool(2); System.out.println(p.submit(() -> 42).get()); p.shutdown();"),
    "parallel": java("System.out.println(IntStream.range(0, 1000).parallel().sum());"),
    "stack trace": java("new Exception(\"x\").printStackTrace(); System.out.println(Arrays.toString(Thread.currentThread().getStackTrace()));"),
    "stack walker": java("System.out.println(StackWalker.getInstance().walk(s -> s.map(StackWalker.StackFrame::getMethodName).toList()).toString());"),
    "recursion": java("System.out.println(depth(100000));", "static int depth(int n) { return n == 0 ? 0 : 1 + depth(n - 1); }"),
    "overflow": java("try { for_ever(0); } catch (StackOverflowError e) { System.out.println(\"overflow\"); }", "static long for_ever(long n) { return for_ever(n + 1) + 1; }"),
    "memory": java("List<byte[]> b = new ArrayList<>(); for (;;) b.add(new byte[1 << 20]);"),
    "heap": java("System.out.println(Runtime.getRuntime().maxMemory());"),
    "cpu": java("for (;;) {}"),
    "processors": java("System.out.println(Runtime.getRuntime().availableProcessors());"),
    "collectors": java("System.out.println(java.lang.management.ManagementFactory.getGarbageCollectorMXBeans().stream().map(b -> b.getName()).toList());"),
    "lambda names": java("Runnable r = () -> {}; System.out.println(r.getClass().getSimpleName().replaceAll(\"0x.*|/.*\", \"\"));"),
    "anonymous": java("System.out.println(new Object() { public String toString() { return getClass().getName(); } });"),
    "record": java("System.out.println(new P(1, \"x\"));", "record P(int a, String b) {}"),
    "enum switch": java("System.out.println(switch (E.B) { case A -> 1; case B -> 2; });", "enum E { A, B }"),
    "static initializer": java("System.out.println(X);", 'static final int X; static { System.out.println("init"); X = 7; }'),
    "initializer throws": java("", 'static { if (true) throw new RuntimeException("init"); }'),
    "files": java('System.out.println(Arrays.stream(new File(".").list()).sorted().toList() + new String(java.nio.file.Files.readAllBytes(java.nio.file.Path.of("data/x.txt"))));'),
    "write": java('java.nio.file.Files.writeString(java.nio.file.Path.of("o.txt"), "x"); System.out.println(new File("o.txt").length() + java.nio.file.attribute.PosixFilePermissions.toString(java.nio.file.Files.getPosixFilePermissions(java.nio.file.Path.of("o.txt"))));'),
    "cwd": java('System.out.println(new File("").getAbsolutePath() + System.getProperty("user.dir"));'),
    "other class": java("System.out.println(Other.twice(21));"),
    "resource": java('System.out.println(new String(Main.class.getResourceAsStream("data/x.txt").readAllBytes()));'),
    "missing class": java('Class.forName("Nope");'),
    "reflection": java('System.out.println(Main.class.getDeclaredMethod("main", String[].class));'),
    "closed module": java('var f = FileDescriptor.class.getDeclaredField("fd"); f.setAccessible(true);'),
    "process": java('Process p = new ProcessBuilder("/bin/echo", "sub").inheritIO().start(); System.out.println(p.waitFor());'),
    "assertions": java("assert false; System.out.println(\"off\");"),
    "random": java("System.out.println(new Random(5).nextInt());"),
    "regex": java('System.out.println("a1b22".replaceAll("[0-9]+", "#"));'),
    "streams": java('System.out.println(Stream.of("b", "a").sorted().collect(Collectors.joining(",")));'),
    "big": java("System.out.println(java.math.BigInteger.TWO.pow(200));"),
    "time": java("System.out.println(java.time.LocalDate.of(2024, 2, 29).plusYears(1));"),
    "format": java('System.out.println(String.format("%,d %s", 1234567, new java.text.DecimalFormat("#.##").format(1.239)));'),
    "network": java('try { new java.net.Socket("127.0.0.1", 1); } catch (IOException e) { System.out.println(e.getMessage()); }'),
    "deprecated": java("Thread.currentThread().stop();"),
    "no main": "public class Main { }",
    "main in an interface": 'public interface Main { static void main(String[] a) { System.out.println("interface"); } }',
    "own class of a taken name": java("System.out.println(new Standby());", 'static class Standby { public String toString() { return "mine"; } }'),
}
JAVA_FILES = {"Other.java": b"public class Other { static int twice(int x) { return 2 * x; } }",
              "data/x.txt": b"text"}
JAVA_LIMITS = {"memory": {"memory_bytes": 192 * MIB}, "cpu": {"cpu_ms": 1500}}


@pytest.fixture(scope="module")
def shared_java(start):
    return start(languages=("java",), slots=2)


@pytest.mark.parametrize("name", list(JAVA))
def test_java_is_the_same(shared_java, name):
    task = {"files": JAVA_FILES, "stdin": b"one\ntwo\n", "entry": "Main.java",
            "compile_limits": {"memory_bytes": 1024 * MIB, "processes": 128},
            "limits": LIMITS | JAVA_LIMITS.get(name, {})}
    cold = shared_java.run("java", JAVA[name], cold=True, **task)
    assert cold.done["standby"] in ("sandbox", "none") and cold.runs, cold.compiled
    warm = warm_run(shared_java, "java", JAVA[name], **task)
    plain, other = seen(cold), seen(warm)
    assert plain[:4] == other[:4], (plain, other)
    assert [normal(t) for t in plain[4:]] == [normal(t) for t in other[4:]]


def test_java_with_arguments_starts_cold(shared_java):
    code = java("System.out.println(Arrays.toString(args));")
    warm_run(shared_java, "java", JAVA["hello"], entry="Main.java", limits=LIMITS)
    result = shared_java.run("java", code, entry="Main.java", limits=LIMITS, args=["a", "b c"])
    assert result.stdout == b"[a, b c]\n" and result.done["standby"] != "exec"


# ---- who has one ----


def test_cold_task_has_none(shared):
    warm_run(shared, "javascript", "0", entry="main.js", limits=LIMITS)
    for _ in range(3):
        assert shared.run("javascript", "0", entry="main.js", limits=LIMITS,
                          cold=True).done["standby"] != "exec"


def test_other_limits_start_cold_until_they_are_usual(shared):
    usual = LIMITS | {"cpu_ms": 4321}

    def usual_after_odd():
        warm_run(shared, "javascript", "0", entry="main.js", limits=usual)
        time.sleep(1)
        odd = shared.run("javascript", "0", entry="main.js", limits=usual | {"processes": 77})
        assert odd.done["standby"] != "exec"
        return shared.run("javascript", "0", entry="main.js", limits=usual).done["standby"]
    assert any(usual_after_odd() == "exec" for _ in range(5)), shared.log_text()
    result = warm_run(shared, "javascript", "0", entry="main.js", limits=usual | {"processes": 78})
    assert result.outcome == "ok"


def test_output_limit_is_the_tasks_own(shared):
    warm_run(shared, "javascript", "0", entry="main.js", limits=LIMITS)
    result = warm_run(shared, "javascript", "console.log('x'.repeat(99))", entry="main.js",
                      limits=LIMITS | {"output_bytes": 10})
    assert result.outcome == "output_limit" and result.stdout == b"x" * 10


def test_other_entry_starts_cold(shared):
    for _ in range(4):
        result = shared.run("javascript", "console.log(import.meta.url)", entry="own.mjs", limits=LIMITS)
        assert result.stdout == b"file:///box/own.mjs\n" and result.done["standby"] != "exec"
        time.sleep(0.2)


def test_big_program_starts_cold(shared):
    files = {"big.bin": os.urandom(2 * MIB)}
    code = "console.log(require('fs').statSync('big.bin').size)"
    warm_run(shared, "javascript", "0", entry="main.js", limits=LIMITS)
    for _ in range(2):
        result = shared.run("javascript", code, entry="main.js", files=files, limits=LIMITS)
        assert result.stdout == b"%d\n" % (2 * MIB) and result.done["standby"] != "exec"


def test_program_that_passes_a_pipe_reaches_it_whole(shared):
    files = {"big.txt": "ž".encode() * 400000}
    code = "console.log(require('fs').readFileSync('big.txt', 'utf8').length)"
    result = warm_run(shared, "javascript", code, entry="main.js", files=files, limits=LIMITS,
                      stdin=b"x" * 200000)
    assert result.stdout == b"400000\n"


def test_time_that_it_waited_is_not_the_tasks(shared):
    warm_run(shared, "javascript", "0", entry="main.js", limits=LIMITS)
    result = warm_after(3, shared, "javascript", "0", entry="main.js", limits=LIMITS)
    assert result.run["usage"]["wall_us"] < 2_000_000
    cold = min(shared.run("javascript", "0", entry="main.js", limits=LIMITS, cold=True)
               .run["usage"]["cpu_us"] for _ in range(3))
    assert result.run["usage"]["cpu_us"] < cold


def test_limits_count_from_the_program(shared):
    limits = LIMITS | {"wall_ms": 1500}
    warm_run(shared, "javascript", "0", entry="main.js", limits=limits)
    time.sleep(2)
    result = warm_run(shared, "javascript", "setTimeout(() => console.log('late'), 1000)",
                      entry="main.js", limits=limits)
    assert result.outcome == "ok" and result.stdout == b"late\n"
    result = warm_run(shared, "javascript", "setTimeout(() => {}, 60000)", entry="main.js", limits=limits)
    assert r.LIMITS[result.run["limit_hit"]] == "wall"
    assert 1_400_000 < result.run["usage"]["wall_us"] < 3_000_000


def test_several_runs_each_have_one(start):
    one = start(slots=2)
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    runs = [{"args": [str(i)], "stdin": b"%d" % i, "limits": LIMITS} for i in range(4)]
    code = "const fs = require('fs'); console.log(process.argv[2], fs.readFileSync(0, 'utf8'), " \
           "fs.existsSync('mark')); fs.writeFileSync('mark', '')"
    result = one.run("javascript", code, entry="main.js", runs=runs)
    for i in range(4):
        assert result.outputs[i, r.STDOUT] == b"%d %d false\n" % (i, i)


def is_below(pid, ancestor):
    while pid > 1 and pid != ancestor:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                pid = int(f.read().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


def nodes(one):
    """The interpreters of a runner that wait."""
    found = []
    for pid in subprocess.run(["pgrep", "-f", "^/usr/bin/node --require /setup/"], check=False,
                              stdout=subprocess.PIPE, text=True).stdout.split():
        if is_below(int(pid), one.process.pid):
            found.append(int(pid))
    return found


def test_nobody_stands_by_before_a_language_is_asked_for(start):
    one = start(slots=2)
    time.sleep(1)
    assert nodes(one) == []
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    wait_for(lambda: nodes(one))


def test_budget_bounds_them(start):
    none = start("--standby-bytes", "0")
    small = start("--standby-bytes", "60MiB", slots=4)
    for _ in range(3):
        assert none.run("javascript", "0", entry="main.js", limits=LIMITS).done["standby"] != "exec"
    warm_run(small, "javascript", "0", entry="main.js", limits=LIMITS)
    tasks = [small.assign("javascript", "0", entry="main.js", limits=LIMITS) for _ in range(4)]
    for task in tasks:
        assert small.wait(task).outcome == "ok"
    time.sleep(2)
    assert nodes(none) == [] and len(nodes(small)) == 1


def test_heartbeats_tell_how_many_wait_and_what_they_hold(start):
    one = start("--standby-bytes", str(100 * MIB), "--fork-bytes", "0", slots=2)
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    one.run("javascript", "0", entry="main.js", limits=LIMITS)
    wait_for(lambda: len(nodes(one)) == 2)
    end = time.monotonic() + 20
    while True:
        one.step()  # one comes every five seconds at least
        beat = one.heartbeats[-1] if one.heartbeats else {}
        waiting = {(w["language"], w["compiles"]): w for w in beat.get("waiting", [])}
        if waiting.get(("javascript", False), {}).get("ready") == 2:
            break
        assert time.monotonic() < end, one.heartbeats
    assert (beat["standby_used_bytes"], beat["standby_budget_bytes"]) == (2 * 48 * MIB, 100 * MIB)
    told = waiting["javascript", False]
    if not told["measured"]:
        assert told["memory_bytes"] == 2 * 48 * MIB
        return
    charged = 0
    for pid in nodes(one):
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            charged += 1024 * sum(int(text.split()[1]) for text in f if text.startswith(("Anonymous:", "Shmem:")))
    # Kernels also charge page tables and stacks, and count by and by.
    assert 0.8 * charged < told["memory_bytes"] < 2 * charged + 8 * MIB


def test_one_that_dies_is_replaced_and_costs_no_task(start):
    one = start(slots=2)
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    for _ in range(5):
        wait_for(lambda: nodes(one))
        for pid in nodes(one):
            os.kill(pid, signal.SIGKILL)
        result = one.run("javascript", "console.log('ok')", entry="main.js", limits=LIMITS)
        assert result.stdout == b"ok\n" and not result.done["error_code"]


def test_cancelled_task_ends_its_standby(shared):
    warm_run(shared, "javascript", "0", entry="main.js", limits=LIMITS)
    time.sleep(0.5)
    task = shared.assign("javascript", "console.log('begun'); setInterval(() => {}, 1000)", entry="main.js",
                         limits=LIMITS)
    while not shared.tasks[task].stdout:
        shared.step()
    shared.connection.send("cancel", task=task)
    result = shared.wait(task)
    assert result.done["cancelled"] and result.stdout == b"begun\n"


def switches(pid):
    """How often the threads of a process have gone to sleep."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M)[1])
    return total


@pytest.mark.parametrize("rung", ["auto", "rlimit"])
def test_nobody_looks_at_those_that_wait(start, rung):
    """A spawner that polls a box does so twenty times a second and more; a runner says five times a minute that it lives."""
    one = start("--limits", rung, slots=2)
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    wait_for(lambda: len(nodes(one)) >= 1)
    for _ in range(4):  # what follows a task takes a while
        waiting = nodes(one)
        time.sleep(2)
        before = switches(one.spawner_pid()), switches(one.process.pid)
        time.sleep(5)
        after = switches(one.spawner_pid()), switches(one.process.pid)
        if waiting and waiting == nodes(one) and after[0] - before[0] <= 2 and after[1] - before[1] <= 15:
            return
    pytest.fail(f"{before} {after} {waiting} {nodes(one)}")


SPINS = """name: spins
title: Spins
aliases: []
extensions: [.spins]
source: main.spins
version: {argv: [/bin/bash, --version]}
run:
  argv: [/bin/true]
  standby: {argv: [/bin/bash, -c, "printf w >&62; while :; do :; done"], memory_bytes: 1MiB}
check: {hello: {code: x, stdout: ""}}
"""


@pytest.mark.long
def test_one_that_computes_while_it_waits_is_ended():
    """After a minute of CPU time."""
    folder = r.copy_languages()
    with open(os.path.join(folder, "spins.yaml"), "w", encoding="utf-8") as f:
        f.write(SPINS)
    one = r.Runner("--standby-bytes", "2MiB", *(("--user", "64777:64777") if ROOT else ()), languages=folder, slots=2)

    def spinning():
        found = subprocess.run(["pgrep", "-f", "^/bin/bash -c printf w >&62; while"], check=False,
                               stdout=subprocess.PIPE, text=True).stdout.split()
        return {int(pid) for pid in found if is_below(int(pid), one.process.pid)}

    assert one.run("spins", "x").outcome == "ok"
    wait_for(spinning)
    first = spinning()
    wait_for(lambda: not first & spinning(), 300)
    assert one.close() == 0
    shutil.rmtree(folder)


def test_none_outlives_its_runner(start):
    one = start(slots=2)
    warm_run(one, "javascript", "0", entry="main.js", limits=LIMITS)
    wait_for(lambda: nodes(one))
    pids = nodes(one)
    assert one.close() == 0
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10)
