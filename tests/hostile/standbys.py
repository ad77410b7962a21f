# SPDX-License-Identifier: Apache-2.0
"""Programs that attack what stands by: the descriptors that an interpreter got its program by, the next one to be
given a task, the files made beforehand, the compile cache. Each must have run in an interpreter that stood by."""

from attack import MIB, attack, java

# Of all of them, so that interpreters are started with these.
STANDBY = {"wall_ms": 10000, "cpu_ms": 2000, "memory_bytes": 256 * MIB, "processes": 64}
HEAD = "const fs = require('fs'), cp = require('child_process');\n" \
       "const t = (what, f) => { try { console.log('ESCAPED', what, f()); } catch (e) { console.log(what, 'refused:', " \
       "e.code); } };\n"


def js(name, code, outcome="ok", says="end", **kw):
    return attack("standby", f"js-{name}", "javascript", HEAD + code, outcome, says, limits=STANDBY, **kw)


def jvm(name, body, outcome="ok", says="end", **kw):
    return attack("standby", f"java-{name}", "java", java(body), outcome, says, limits=STANDBY, **kw)


def py(name, code, outcome="ok", says="end", **kw):
    return attack("standby", f"python-{name}", "python", PY_HEAD + code, outcome, says, limits=STANDBY, **kw)


def rb(name, code, outcome="ok", says="end", **kw):
    return attack("standby", f"ruby-{name}", "ruby", RB_HEAD + code, outcome, says, limits=STANDBY, **kw)


PY_HEAD = """import ctypes, mmap, os, re, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def t(what, f):
    try: print('ESCAPED', what, f())
    except (OSError, ValueError, PermissionError) as e: print(what, 'refused:', type(e).__name__)
def call(*a):
    r = libc.syscall(*a)
    if r < 0: raise OSError(ctypes.get_errno(), '')
    return r
"""

RB_HEAD = """def t(what)
  puts "ESCAPED #{what} #{yield.inspect}"
rescue SystemCallError, IOError, ArgumentError => e
  puts "#{what} refused: #{e.class}"
end
"""

# In a fork of an interpreter, which had been a spawner until it became the task.
PYTHON = [
    py("descriptors", "for n in range(3, 4096):\n try: os.fstat(n); print('ESCAPED', n, os.readlink(f'/proc/self/fd/{n}'))\n"
       " except OSError: pass\nprint('end')"),
    py("spawners-socket", "for n in range(3, 72): t(f'to {n}', lambda: call(44, n, b'x' * 64, 64, 0, 0, 0))\nprint('end')",
       says=("to 3 refused", "to 64 refused", "end")),
    py("capabilities", "s = open('/proc/self/status').read()\nfor c in re.findall(r'Cap\\w+:\\s*(\\w+)', s):\n"
       " if int(c, 16): print('ESCAPED', c)\nt('setuid', lambda: os.setuid(0))\nt('setgid', lambda: os.setgid(0))\n"
       "t('setns', lambda: call(308, os.open('/proc/self/ns/net', 0), 0))\nt('unshare', lambda: call(272, 0x20000))\n"
       "t('mount', lambda: call(165, b'x', b'/tmp', b'tmpfs', 0, 0))\nprint('end')",
       says=("setuid refused", "setgid refused", "unshare refused", "mount refused", "end")),
    py("walls", "s = open('/proc/self/status').read()\nassert 'Seccomp:\\t2' in s and 'NoNewPrivs:\\t1' in s\nprint('end')"),
    py("first-process", "t('memory', lambda: open('/proc/1/mem', 'rb').read(1))\nt('maps', lambda: open('/proc/1/maps').read())\n"
       "t('descriptors', lambda: os.listdir('/proc/1/fd'))\nt('environment', lambda: open('/proc/1/environ').read())\n"
       "t('trace', lambda: call(101, 16, 1, 0, 0))\nt('kill', lambda: os.kill(1, 9))\nt('read', lambda: "
       "call(310, 1, 0, 0, 0, 0, 1))\nprint('end')",
       says=("memory refused", "maps refused", "descriptors refused", "environment refused", "trace refused", "end")),
    py("others", "print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), 'end')", says=("[1, 2] end",)),
    py("environment", "e = open('/proc/self/environ').read() + str(os.environ)\n"
       "if re.search('secret|token', e, re.I): print('ESCAPED', e)\nprint('end')"),
    py("leaves-files", "for d in ('/tmp', '/dev/shm', '/box'):\n p = d + '/kiln-hostile-py'\n if os.path.exists(p): print('ESCAPED', p)\n"
       " open(p, 'w').close()\nprint('end')"),
    py("leaves-module", "import json\nif hasattr(json, 'kiln_hostile'): print('ESCAPED')\njson.kiln_hostile = 1\nprint('end')"),
    py("kills-all", "t('one', lambda: os.kill(1, 9))\ntry: os.kill(-1, 9)\nexcept OSError as e: print(e)\nprint('end')",
       outcome=("ok", "signalled"), says=()),
    py("dies-at-once", "os.kill(os.getpid(), 9)", outcome="signalled", says=()),
    py("closes-all", "print('end', flush=True)\nos.closerange(0, 4096)", outcome=("ok", "runtime_error"), says=()),
    py("flood", "while True: os.write(1, b'x' * 65536)", outcome="output_limit", says=()),
    py("spins", "while True: pass", outcome="time_limit", says=()),
    py("fork-bomb", "while True:\n try: os.fork()\n except OSError: pass", outcome="time_limit", says=()),
    py("orphans", "for i in range(20):\n if os.fork() == 0: os.setsid(); time.sleep(100)\nprint('end')"),
    py("memory", "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 22))", outcome="memory_limit", says=()),
    # The library that made it what it is, called again: a spawner without any right.
    py("library", "so = next(l.split()[-1] for l in open('/proc/self/maps') if 'kiln-zygote' in l)\n"
       "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\nlists = (ctypes.c_void_p * 2)()\n"
       "print('end', flush=True)\nb.close()\nctypes.PyDLL(so).kiln_zygote_serve(a.fileno(), lists)\nprint('ESCAPED')",
       outcome=("ok", "runtime_error", "signalled"), says=("end",)),
]

RUBY = [
    rb("descriptors", "(5..4096).each { |n| begin; IO.for_fd(n, autoclose: false); puts \"ESCAPED #{n}\"; "
       "rescue SystemCallError; end }\n"
       "puts Dir.children('/proc/self/fd').grep(/\\A[34]\\z/).map { |n| File.readlink(\"/proc/self/fd/#{n}\") }, 'end'",
       says=("anon_inode:[eventfd]\nanon_inode:[eventfd]\nend",)),
    rb("sockets", "(0..72).each { |n| t(\"to #{n}\") { syscall(44, n, 'x' * 64, 64, 0, 0, 0) } }\nputs 'end'",
       says=("to 3 refused", "to 63 refused", "to 64 refused", "end")),
    rb("walls", "s = File.read('/proc/self/status')\nputs s[/Seccomp:\\t2/], s[/NoNewPrivs:\\t1/]\n"
       "s.scan(/Cap\\w+:\\s*(\\w+)/) { puts 'ESCAPED' if $1.hex > 0 }\nt('setuid') { Process::Sys.setuid(0) }\n"
       "t('mount') { syscall(165, 'x', '/tmp', 'tmpfs', 0, 0) }\nt('unshare') { syscall(272, 0x20000) }\nputs 'end'",
       says=("Seccomp:\t2", "NoNewPrivs:\t1", "setuid refused", "mount refused", "unshare refused", "end")),
    rb("first-process", "%w[mem maps environ].each { |n| t(n) { File.read(\"/proc/1/#{n}\", 1) } }\n"
       "t('descriptors') { Dir.children('/proc/1/fd') }\nt('kill') { Process.kill(9, 1); raise Errno::EPERM }\nputs 'end'",
       says=("mem refused", "maps refused", "environ refused", "descriptors refused", "end")),
    rb("others", "puts Dir.children('/proc').grep(/\\A\\d+\\z/).map(&:to_i).sort.inspect + ' end'", says=("[1, 2] end",)),
    rb("leaves-methods", "puts 'ESCAPED' if Object.const_defined?(:KILN) || 1.respond_to?(:kiln)\nKILN = 1\n"
       "class Integer; def kiln = 1; end\nmodule Kernel; def require(*) = raise('evil'); end\nputs 'end'"),
    rb("leaves-files", "%w[/tmp /dev/shm /box].each { |d| n = d + '/kiln-hostile-rb'; puts 'ESCAPED' if File.exist?(n); "
       "File.write(n, '') }\nputs 'end'"),
    rb("kills-all", "t('one') { Process.kill(9, 1); raise Errno::EPERM }\nProcess.kill(9, -1) rescue p $!\nputs 'end'",
       outcome=("ok", "signalled"), says=()),
    rb("closes-all", "$stdout.puts 'end'; $stdout.flush; (0..4096).each { |n| IO.for_fd(n).close rescue nil }",
       outcome=("ok", "runtime_error", "signalled"), says=()),
    rb("flood", "loop { $stdout.syswrite('x' * 65536) }", outcome="output_limit", says=()),
    rb("spins", "loop {}", outcome="time_limit", says=()),
    rb("orphans", "20.times { fork { Process.setsid; sleep 100 } }\nputs 'end'"),
    rb("memory", "x = []\nloop { x << 'x' * (1 << 22) }", outcome="memory_limit", says=()),
    # The library that made it what it is, called again: a spawner without any right.
    rb("library", "require 'fiddle'; require 'socket'\nso = File.read('/proc/self/maps')[/\\S+kiln-zygote\\.so/]\n"
       "a, b = UNIXSocket.pair(:SEQPACKET); puts 'end'; $stdout.flush; b.close\n"
       "Fiddle::Function.new(Fiddle.dlopen(so)['kiln_zygote_serve'], [Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP], "
       "Fiddle::TYPE_VOID).call(a.fileno, '\\0' * 16)\nputs 'ESCAPED'",
       outcome=("ok", "runtime_error", "signalled"), says=("end",)),
]

JAVASCRIPT = [
    js("given-by", "for (const n of [62, 63]) { t('fstat', () => fs.fstatSync(n)); t('link', () => "
       "fs.readlinkSync('/proc/self/fd/' + n)); t('read', () => fs.readSync(n, Buffer.alloc(9))); } console.log('end')",
       says=("fstat refused: EBADF", "link refused: ENOENT", "read refused: EBADF")),
    # Only its own pipes may be there, with both ends in this process, and the standard streams.
    js("pipes-of-others", "const own = {}; for (const n of fs.readdirSync('/proc/self/fd')) { let l; try { l = "
       "fs.readlinkSync('/proc/self/fd/' + n) } catch { continue } if (l.startsWith('pipe') && n > 2) (own[l] ||= "
       "[]).push(n); if (/socket|memfd|setup/.test(l)) console.log('ESCAPED', n, l); } for (const [l, ns] of "
       "Object.entries(own)) if (ns.length !== 2) console.log('ESCAPED', l, ns); console.log('end')"),
    js("message-in-memory", "const s = fs.readFileSync('/proc/self/cmdline', 'utf8') + JSON.stringify(process.env); "
       "if (/KILN|secret|token/i.test(s)) console.log('ESCAPED', s); console.log('end')"),
    js("write-setup", "for (const f of fs.readdirSync('/setup')) { const d = '/setup/' + f; t('new', () => "
       "fs.writeFileSync(d + '/kiln-hostile', 'x')); for (const g of fs.readdirSync(d)) { t('write', () => "
       "fs.writeFileSync(d + '/' + g, 'x')); t('mode', () => fs.chmodSync(d + '/' + g, 0o777)); t('rename', () => "
       "fs.renameSync(d + '/' + g, d + '/x')); t('remove', () => fs.unlinkSync(d + '/' + g)); t('link', () => "
       "fs.linkSync(d + '/' + g, '/box/l')); } } t('folder', () => fs.mkdirSync('/setup/kiln-hostile')); "
       "console.log('end')", says=("new refused:", "write refused:", "mode refused:", "remove refused:", "end")),
    js("leaves-files", "for (const d of ['/tmp', '/dev/shm', '/box']) { if (fs.existsSync(d + '/kiln-hostile-js')) "
       "console.log('ESCAPED found', d); fs.writeFileSync(d + '/kiln-hostile-js', 'x'); } console.log('end')"),
    js("finds-files", "for (const d of ['/tmp', '/dev/shm', '/box']) if (fs.existsSync(d + '/kiln-hostile-js')) "
       "console.log('ESCAPED found', d); console.log('end')"),
    js("poisons-modules", "if (Array.prototype.kiln || fs.kiln) console.log('ESCAPED found'); Array.prototype.kiln = "
       "fs.kiln = 1; fs.readFileSync = () => 'evil'; require.cache = {}; process.stdout.write = () => true; "
       "require('module')._load = () => ({}); fs.writeSync(1, 'end\\n')"),
    js("finds-poison", "if (Array.prototype.kiln || fs.kiln || fs.readFileSync('/etc/hostname') === 'evil') "
       "console.log('ESCAPED found'); console.log('end')"),
    js("outlives", "for (let i = 0; i < 5; i++) cp.spawn('/bin/sh', ['-c', 'exec setsid sleep 60'], { detached: true, "
       "stdio: 'ignore' }).unref(); console.log('end'); process.exit(0)"),
    js("outlives-with-output", "cp.spawn('/bin/sh', ['-c', 'trap \"\" TERM; while :; do echo late; sleep 0.01; done'], { "
       "detached: true, stdio: 'inherit' }).unref(); fs.writeSync(1, 'end\\n'); process.exit(0)"),
    # Its own launcher once more, with descriptors that it made itself: a program of its own like any other.
    js("own-launcher", "if (process.argv.length > 2) { console.log('inner end'); process.exit(0); } const f = "
       "fs.readdirSync('/setup').find(n => n.startsWith('javascript-')); const r = cp.spawnSync('/bin/bash', ['-c', "
       "`exec 62>sign 63</dev/null; exec ${process.execPath} --require /setup/${f}/standby.js main.js`], { encoding: "
       "'utf8' }); if (fs.readFileSync('sign', 'utf8') !== 'w') console.log('ESCAPED'); console.log('end', r.status !== "
       "0)", says="end true"),
    js("kills-all", "let n = 0; const own = new Set(fs.readdirSync('/proc/self/task')); for (let p = 2; p < 40000; p++) if (!own.has(String(p))) { try { process.kill(p, 9); n++ } "
       "catch {} } try { process.kill(1, 9) } catch {} if (n) console.log('ESCAPED', n); console.log('end')"),
    js("counts-others", "const n = fs.readdirSync('/proc').filter(p => /^\\d+$/.test(p)).length; if (n > 2) "
       "console.log('ESCAPED', n); console.log('end')"),
    js("more-time", "for (;;) {}", outcome="time_limit", says=()),
    js("more-memory", "const b = []; for (;;) b.push(Buffer.alloc(1 << 20, 1));", outcome="memory_limit", says=()),
    js("more-processes", "const c = []; for (let i = 0; i < 500; i++) { const p = cp.spawn('/bin/sleep', ['60'], { stdio: "
       "'ignore' }); p.on('error', () => {}); if (p.pid) c.push(p) } if (c.length > 64) console.log('ESCAPED', c.length); "
       "fs.writeSync(1, 'end\\n'); process.exit(0)"),
]
# A JVM has 62 and 63 still open; there must be nothing to be had by them.
JAVA = [
    # Taken back, its sign would make the runner believe that nothing has begun, and begin once more.
    jvm("takes-sign-back", 'System.out.println("once"); System.out.flush(); '
        'try (var in = new FileInputStream("/proc/self/fd/62")) { int n = in.available(); byte[] b = new byte[9]; '
        'if (n > 0) in.read(b); } catch (IOException e) { } System.out.println("end");', says="once\nend"),
    jvm("gives-signs", 'try (var out = new FileOutputStream("/proc/self/fd/62")) { out.write("wgwgwg".getBytes()); } '
        'catch (IOException e) { } System.out.println("end");'),
    jvm("gives-itself-more", 'try (var out = new FileOutputStream("/proc/self/fd/63")) { out.write(new byte[4096]); } '
        'catch (IOException e) { System.out.println("refused"); } System.out.println("end");'),
    jvm("reads-given", 'try (var in = new FileInputStream("/proc/self/fd/63")) { int n = in.available(); '
        'System.out.println(n > 0 ? "ESCAPED" : "empty"); } catch (IOException e) { System.out.println("refused"); } '
        'System.out.println("end");'),
    jvm("write-setup", 'for (File d : new File("/setup").listFiles()) for (File f : d.listFiles()) { '
        'if (f.delete() || f.setWritable(true)) System.out.println("ESCAPED " + f); '
        'try { new FileOutputStream(f).write(1); System.out.println("ESCAPED"); } '
        'catch (IOException e) { System.out.println("refused"); } } System.out.println("end");', says=("refused", "end")),
    # What it was compiled to is kept, and given to whoever sends the same.
    jvm("poisons-build", 'for (File f : new File("/box").listFiles()) { '
        'if (f.getName().startsWith("Evil") || f.length() > 20000) System.out.println("ESCAPED " + f); } '
        'try (var out = new FileOutputStream("/box/Main.class", true)) { out.write(new byte[30000]); } '
        'catch (IOException e) { } Files.writeString(Path.of("/box/Evil.class"), "x"); System.out.println("end");'),
    jvm("outlives", 'for (int i = 0; i < 3; i++) new ProcessBuilder("/bin/sh", "-c", "exec setsid sleep 60").inheritIO()'
        '.start(); System.out.println("end"); Runtime.getRuntime().halt(0);'),
    jvm("never-ends", 'Runtime.getRuntime().addShutdownHook(new Thread(() -> { for (;;) ; })); System.out.println("end"); '
        'System.exit(0);', outcome="time_limit", says=()),
]
ATTACKS = PYTHON + RUBY + JAVASCRIPT + JAVA
