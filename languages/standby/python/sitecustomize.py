# SPDX-License-Identifier: Apache-2.0
"""Makes of a Python that starts the one that tasks are forked of.

It is the module that Python imports last before it reads the program that it was started for. It
imports what programs import, becomes a spawner (src/sandbox/zygote.h), and returns in each task:
from there on all goes on by itself, so that a program runs as in a Python of its own."""

import atexit
import gc
import os
import sys


class Program:
    """What the zygote's library tells of a task, and does for it."""

    def __init__(self):
        import ctypes

        class Lists(ctypes.Structure):
            _fields_ = [(name, ctypes.POINTER(ctypes.c_char_p)) for name in ("argv", "envp")]

        # Not a CDLL, which gives up the interpreter's lock around each call.
        library = ctypes.PyDLL(os.environ["KILN_ZYGOTE"])
        self.serve = library.kiln_zygote_serve
        self.watch = library.kiln_zygote_watch
        self.watch.argtypes = [ctypes.py_object]
        self.exits = library.kiln_zygote_exits
        self.leave = library.kiln_zygote_leave
        self.before = ctypes.pythonapi.PyOS_BeforeFork
        self.after = ctypes.pythonapi.PyOS_AfterFork_Child
        self.lists = Lists()
        self.pointer = ctypes.byref(self.lists)

    def wait(self):
        self.before()
        self.serve(3, self.pointer)
        self.after()
        return strings(self.lists.argv), strings(self.lists.envp)


def strings(array):
    found = []
    for text in array:
        if text is None:
            return found
        found.append(os.fsdecode(text))


def import_all(names):
    for name in names:
        __import__(name)
    # What was to be imported in our place.
    sys.path.remove(os.path.dirname(__file__))
    own = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize as _  # noqa: F401
    except ImportError:
        sys.modules["sitecustomize"] = own


# ---- in a task ----

STREAMS = {"stdin": (0, "r"), "stdout": (1, "w"), "stderr": (2, "w")}


def kind(fd):
    return os.fstat(fd).st_mode >> 12


def renew_streams(kinds):
    """A stream's object knows what it was opened on, a pipe: others are opened anew."""
    import io

    for name, (fd, mode) in STREAMS.items():
        if kind(fd) == kinds:
            continue
        old = getattr(sys, name)
        buffered = open(fd, mode + "b", closefd=False)
        buffered.raw.name = old.name
        new = io.TextIOWrapper(buffered, old.encoding, old.errors, "\n" if mode == "w" else None,
                               old.line_buffering)
        new.mode = mode
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def become(argv, envp, kinds):
    import _signal

    sys.orig_argv[:] = argv
    sys.argv[:] = argv[1:]
    want = dict(text.split("=", 1) for text in envp)
    for name in [*os.environ]:
        if name not in want:
            del os.environ[name]
    for name, value in want.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_IGN)
    renew_streams(kinds)


# ---- its end ----
#
# To take an interpreter apart costs more than most programs: each of its objects is written to, and
# so each page of them copied first. After a plain program nobody would see the difference. One is
# plain if it ended by itself, and if none of what it leaves has a say when it goes.

OBJECTS_MAX = 4000  # to look at more of them is not quicker than to take them apart
HEAP_TYPE = 1 << 9


def plain_types():
    def function():
        return function

    samples = ([], {}, set(), frozenset(), (), function, function.__closure__[0], len, [].append,
               str.join, int.__add__, int.real, property(), staticmethod(len), classmethod(len),
               sys, iter([]), iter(()), iter({}), iter({1}), iter({}.values()), iter({}.items()),
               {}.keys(), {}.values(), {}.items(), zip(), map(len, []), filter(None, []),
               enumerate([]), reversed([]), memoryview(b""), slice(0), super(int),
               type.__dict__, type.__dict__["__doc__"], become.__get__(1), object(), int.__call__)
    return {*map(type, samples)}


def is_plain(cls):
    """Whether objects of a class written in Python go without a word."""
    return all(base is object or (base.__flags__ & HEAP_TYPE and "__del__" not in base.__dict__
                                  and type(base) is type)
               for base in cls.__mro__)


def leaves_nothing(known, modules):
    from _weakref import ref

    objects = gc.get_objects()
    if len(objects) > OBJECTS_MAX:
        return False
    kinds = {*map(type, objects)} - known
    if type in kinds:
        kinds.remove(type)
        if not all(is_plain(o) for o in objects if type(o) is type):
            return False
    if ref in kinds:
        kinds.remove(ref)
        if any(o.__callback__ for o in objects if type(o) is ref):
            return False
    if not all(map(is_plain, kinds)):
        return False
    # Libraries have ends of their own.
    return not any(type(getattr(sys.modules[name], "__loader__", None)).__name__ ==
                   "ExtensionFileLoader" for name in sys.modules.keys() - modules)


def leave_by(program):
    known = plain_types()
    hook = sys.excepthook

    def leave():
        plain = not (hasattr(sys, "last_type") or sys.excepthook is not hook or gc.garbage
                     or program.exits()) and leaves_nothing(known, modules)
        try:
            if plain:
                sys.stdout.flush()
                sys.stderr.flush()
                program.leave()
        except BaseException:  # noqa: BLE001
            pass  # the words on that are not ours to find
        # What is taken apart now may be tied to what was frozen.
        gc.unfreeze()

    modules = {*sys.modules}
    # From here on a SystemExit is noted, which tells of an end with some other code.
    if program.watch(sys.exit) == 0:
        atexit.register(leave)


def main():
    program = Program()
    import_all(os.environ["KILN_ZYGOTE_IMPORTS"].split())
    leave_by(program)
    kinds = kind(0)
    # Not walked over by collections, whose marks would copy its pages.
    gc.collect()
    gc.freeze()
    become(*program.wait(), kinds)
    gc.freeze()


def refuse(why):
    """A SANDBOX_REPLY_ERROR (src/sandbox/protocol.h) to whoever waits for an answer."""
    import struct

    magic, version, error_type, configure, eio = 0x4B4C, 2, 13, 2, 5
    os.write(3, struct.pack("=HHHHQIi248s", magic, version, error_type, 0, 0, configure, eio,
                            why.encode()[:247]))


# Whatever goes wrong, what comes next would be a program.
try:
    main()
except BaseException as e:  # noqa: BLE001
    refuse(f"Python could not become one to fork tasks of: {e!r}")
    os._exit(1)
