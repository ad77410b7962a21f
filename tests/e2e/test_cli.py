# SPDX-License-Identifier: Apache-2.0
"""The command line: what a person types first, and what it says when it is wrong."""

import json
import os
import signal
import subprocess
import time

import pytest

import harness
from programs import HELLO


def heed_ctrl_c():
    """A shell starts what runs in its background with SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

EXTENSIONS = {"python": "py", "javascript": "js", "c": "c", "cpp": "cpp", "bash": "sh", "ruby": "rb"}


def write(scratch, name, text):
    path = os.path.join(scratch, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


@pytest.mark.parametrize("language", EXTENSIONS)
def test_run_knows_the_language_by_extension(cli, server, scratch, language):
    done = cli("run", write(scratch, f"hello.{EXTENSIONS[language]}", HELLO[language]), server=server)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


def test_run_passes_stdin_arguments_streams_and_exit_status(cli, server, scratch):
    path = write(scratch, "all.py", "import sys\nprint(sys.argv[1:], sys.stdin.read())\n"
                 "print('err', file=sys.stderr)\nsys.exit(5)")
    done = cli("run", path, "one", "two", server=server, input="typed")
    assert (done.returncode, done.stdout) == (5, "['one', 'two'] typed\n"), done
    assert "err" in done.stderr


def test_run_json(cli, server, scratch):
    done = cli("run", "--json", write(scratch, "j.py", "print(1)"), server=server)
    task = json.loads(done.stdout)
    assert (done.returncode, task["outcome"], task["stdout"]) == (0, "ok", "1\n")


def test_run_tells_of_a_compile_error(cli, server, scratch):
    done = cli("run", write(scratch, "bad.c", "int main(void) { return missing; }"), server=server)
    assert done.returncode != 0 and done.stdout == "", done
    assert "missing" in done.stderr


def test_run_tells_of_a_limit(cli, server, scratch):
    done = cli("run", "--wall", "500ms", write(scratch, "z.py", "import time\ntime.sleep(20)"), server=server)
    assert done.returncode != 0, done
    assert "time" in done.stderr.lower(), done


@pytest.mark.parametrize("option", ["cpu", "wall", "deadline"])
def test_times_need_a_unit(cli, server, scratch, option):
    path = write(scratch, "unit.sh", "echo ran")
    done = cli("run", f"--{option}", "5", path, server=server)
    assert (done.returncode, done.stdout) == (64, ""), done
    assert f"--{option} 5 needs a unit: --{option} 5ms or --{option} 5s" in done.stderr, done
    for value in ("5s", "5000ms"):
        assert cli("run", f"--{option}", value, path, server=server).stdout == "ran\n"


def test_config_keys_tell_every_kind_of_address(cli):
    text = cli("config", "--keys").stdout
    for url in ("sqlite:PATH", "postgresql://", "memory:", "amqp://", "redis://"):
        assert url in text, url
    for role in ("api", "scheduler"):
        assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE\n" in cli(role, "--help").stdout, role


@pytest.mark.parametrize("words", [
    ("keys", "list", "--store=postgresql://me:hun@ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun@ter2,b@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun/ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun/x?ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun?ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun%ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgresql://me:hun:ter2@127.0.0.1:1/kiln"),
    ("keys", "list", "--store=postgres://me:hunter2@127.0.0.1:1/kiln"),
    ("migrate", "--store=postgres://me:hunter2@127.0.0.1:1/kiln"),
    ("queue", "--queue=amqp://me:hun@ter2@127.0.0.1:1/v"),
    ("queue", "--queue=amqp://me:hun/ter2@127.0.0.1:1/v"),
    ("queue", "--queue=amqp://me:hun?ter2@127.0.0.1:1/v"),
    ("queue", "--queue=amqp://me:hun?ter2=x@127.0.0.1:1/v"),
    ("queue", "--queue=amqps://me:hunter2@127.0.0.1:1/v"),
    ("serve", "--listen=127.0.0.1:0", "--queue=amqps://me:hunter2@127.0.0.1:1/v"),
    ("config", "--store=postgresql://me:hun@ter2@127.0.0.1:1/kiln"),
    ("config", "--store=postgresql://me:hun/ter2@127.0.0.1:1/kiln?a=b@c"),
    ("config", "--store=postgresql://127.0.0.1/kiln?user=me&password=hunter2&connect_timeout=9"),
    ("config", "--cache=redis://:hun@ter2@127.0.0.1:1/0"),
    ("keys", "list", "--store=host=127.0.0.1 password=hunter2"),
    ("keys", "list", "--store=postgresql://me:hunter2/kiln"),
    ("keys", "list", "--store=postgresql:me:hunter2@127.0.0.1/kiln"),
    ("keys", "list", "--store=postgresql:me:hunter2 127.0.0.1/kiln"),
    ("keys", "list", "--store=postgresql://127.0.0.1/kiln?user=me&password=hun%ter2"),
    ("keys", "list", "--store=postgresql://127.0.0.1:1/kiln?user=me&pass%77ord=hunter2"),
    ("queue", "--queue=amqp://me:hunter2/v"),
    ("queue", "--queue=amqp//me:hunter2@127.0.0.1/v"),
    ("queue", "--queue=me:hunter2@127.0.0.1/v"),
    ("serve", "--listen=127.0.0.1:0", "--queue=me:hunter2@127.0.0.1/v"),
    ("serve", "--listen=127.0.0.1:0", "--cache=redis://me:hunter2/0"),
    ("serve", "--listen=127.0.0.1:0", "--cache=memory:hunter2"),
    ("serve", "--listen=127.0.0.1:0", "--otlp-endpoint=me:hunter2@127.0.0.1"),
    ("serve", "--listen=127.0.0.1:0", "--otlp-endpoint=http:me:hunter2@127.0.0.1"),
    ("serve", "--listen=127.0.0.1:0", "--otlp-endpoint=http://127.0.0.1:1",
     "--otlp-headers=Authorization hunter2"),
    ("result", "01a2079a-7a5b-73e2-894e-1361eb7b939d", "--server=http://me:hunter2@127.0.0.1:1"),
    ("result", "01a2079a-7a5b-73e2-894e-1361eb7b939d", "--server=me:hunter2@127.0.0.1:1"),
    *(("config", option) for option in (
        "--store=host=127.0.0.1 password=hunter2",
        "--store=postgresql:me:hunter2@h/d",
        "--store=postgresql://h/d?user=me&pass%77ord=hunter2",
        "--queue=amqp:me:hunter2@h",
        "--queue=amqp//me:hunter2@h",
        "--queue=me:hunter2@h",
        "--cache=redis:me:hunter2@h",
        "--cache=redis://hunter2@h",
        "--otlp-endpoint=http://me:hunter2@h:4318",
        "--otlp-headers=Authorization hunter2",
    )),
])
def test_no_part_of_a_password_is_shown(cli, scratch, words):
    where = () if words[0] == "result" else (f"--data-dir={scratch}/d",)
    done = cli(*words, *where)
    text = done.stdout + done.stderr
    assert (done.returncode == 0) == (words[0] == "config"), done
    assert text and "hun" not in text and "ter2" not in text, done


COMMANDS = ("serve", "run", "submit", "result", "cancel", "languages", "doctor", "keys", "tenants",
            "migrate", "queue", "api", "scheduler", "runner-key", "config")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_wrapped(cli, command):
    """No line is long, and none ends where the next word would have fitted easily."""
    lines = cli(command, "--help").stdout.splitlines()
    for line, following in zip(lines, lines[1:]):
        assert len(line) <= 100, line
        if line[:1].isupper() or line[:1].islower():
            fits = len(line) + 1 + len(following.split(" ")[0]) <= 75
            prose = following[:1].isalpha() and not line.startswith("usage:")
            assert not (prose and fits), line


class Running:
    """kiln run of a program that sleeps, until the server runs it."""

    def __init__(self, server, scratch, port=None):
        path = write(scratch, "sleeps.py", "import time\ntime.sleep(60)")
        known = {t["task_id"] for t in server.get("/tasks").json["tasks"]}
        env = harness.clean_env({"HOME": scratch,
                                 "KILN_SERVER": f"http://127.0.0.1:{port or server.port}"})
        self.process = subprocess.Popen([harness.program("kiln"), "run", "--wall", "60s", path], env=env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True,
                                        preexec_fn=heed_ctrl_c)

        def started():
            return [t["task_id"] for t in server.get("/tasks").json["tasks"]
                    if t["task_id"] not in known and t["status"] == "running"]
        self.task_id = harness.wait_until(started, what="the task running")[0]

    def end(self):
        out, error = self.process.communicate(timeout=harness.PATIENCE)
        return self.process.returncode, out, error


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0, 2])
def test_ctrl_c_cancels_the_task(server, scratch, signo, after_s):
    """At once: while the submission itself still waits; later: while its result is asked for."""
    running = Running(server, scratch)
    time.sleep(after_s)
    running.process.send_signal(signo)
    code, out, error = running.end()
    assert (code, out) == (130, ""), error
    assert f"the task {running.task_id} is cancelled" in error
    assert server.wait(running.task_id)["status"] == "cancelled"


def test_second_ctrl_c_leaves_at_once(make_server, scratch):
    server = make_server()
    running = Running(server, scratch)
    time.sleep(2)
    stopped = server.pids("kiln")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        running.process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert running.process.poll() is None, "it did not try to cancel the task"
        running.process.send_signal(signal.SIGINT)
        code, out, error = running.end()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert (code, out) == (130, ""), error
    assert f"the task {running.task_id} goes on" in error


@pytest.mark.parametrize("name, text, status", [
    ("t.sh", "while :; do :; done", 124),
    ("m.py", "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))", 125),
    ("o.sh", "while :; do echo 0123456789; done", 125),
    ("s.sh", "kill -SEGV $$", 139),
    ("b.c", "int main(void) { return missing; }", 65),
])
def test_run_exit_status_tells_the_outcome(cli, server, scratch, name, text, status):
    done = cli("run", "--cpu", "300ms", "--memory", "64MiB", "--output", "64KiB",
               write(scratch, name, text), server=server)
    assert done.returncode == status, done


def test_run_output_comes_byte_by_byte(server, scratch):
    path = write(scratch, "raw.py", "import sys\n"
                 "sys.stdout.buffer.write(sys.stdin.buffer.read() + b'\\xff\\x00\\n')")
    done = subprocess.run([harness.program("kiln"), "run", path], input=b"in\xfe\x00", check=False,
                          capture_output=True, timeout=harness.PATIENCE,
                          env=harness.clean_env(
                              {"KILN_SERVER": f"http://127.0.0.1:{server.port}"}))
    assert (done.returncode, done.stdout) == (0, b"in\xfe\x00\xff\x00\n"), done


def test_run_takes_several_files(cli, server, scratch):
    part = write(scratch, "part.txt", "from a file")
    done = cli("run", "--file", f"data.txt={part}", "--file", write(scratch, "helper.py", "X = 6"),
               write(scratch, "two.py", "import helper\nprint(helper.X, open('data.txt').read())"),
               server=server)
    assert (done.returncode, done.stdout) == (0, "6 from a file\n"), done
    done = cli("run", "--file", write(scratch, "b.c", "int answer(void) { return 42; }"),
               write(scratch, "a.c", "int answer(void); int main(void) { return answer(); }"),
               server=server)
    assert done.returncode == 42, done


def test_run_java_class_has_the_name_of_its_file(cli, server, scratch):
    done = cli("run", write(scratch, "Greeter.java", "public class Greeter { public static void "
                            "main(String[] a) { System.out.println(a[0]); } }"), "hi", server=server)
    assert (done.returncode, done.stdout) == (0, "hi\n"), done


def test_submit_result_cancel(cli, server, scratch):
    done = cli("submit", write(scratch, "s.py", "import time\ntime.sleep(20)"), server=server)
    assert done.returncode == 0, done
    task_id = done.stdout.split()[-1]
    done = cli("cancel", task_id, server=server)
    assert done.returncode == 0, done
    done = cli("result", "--wait", "20", "--json", task_id, server=server)
    assert json.loads(done.stdout)["status"] == "cancelled", done


def test_refusal_is_said_once(cli, server):
    done = cli("result", "00000000-0000-7000-8000-000000000000", server=server)
    assert (done.returncode, done.stderr) == (1, "kiln: there is no such task\n"), done


def test_languages(cli, server):
    done = cli("languages", server=server)
    assert done.returncode == 0, done
    for name in HELLO:
        assert name in done.stdout
    listed = json.loads(cli("languages", "--json", server=server).stdout)
    assert {entry["name"] for entry in listed["languages"]} >= set(HELLO)


@pytest.mark.parametrize("language", HELLO)
def test_languages_check_proves_each(cli, language):
    done = cli("languages", "check", language, timeout=180)
    assert done.returncode == 0, done


def test_doctor(cli):
    done = cli("doctor")
    assert done.returncode == 0, done
    for word in ("seccomp", "namespaces", "landlock", "cgroup", "swap", "aslr", "apparmor", "kernel"):
        assert word in done.stdout.lower(), done.stdout


def test_doctor_for_scripts(cli):
    told = json.loads(cli("doctor", "--json").stdout)
    host = told["host"]
    assert told["works"] is True and host["sandbox"] == "yes"
    assert host["limits"] in ("cgroup2", "cgroup1", "rlimit") and host["landlock"].isdigit()
    assert set(host) >= {"kernel", "machine", "cgroups", "seccomp", "swap", "aslr", "apparmor",
                         "apparmor_restricts_userns", "unprivileged_userns_clone", "max_user_namespaces",
                         "two_ids", "proc", "memory_peak", "cpu_rate", "user"}
    assert {k for k in host if k.startswith("namespace.")} == {
        f"namespace.{n}" for n in ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")}
    # What is missing says what that costs and how to have it.
    for key in ("seccomp", "two_ids", "proc", "memory_peak", "cpu_rate", "swap_limit", "cgroup_kill"):
        assert (host[key] == "no") == (f"{key}.cost" in host) == (f"{key}.get" in host), key
    assert (host["limits"] == "cgroup2") != ("limits.cost" in host)


@pytest.mark.parametrize("demanded, missing", [
    ("none", ()), ("netns,seccomp", ()), ("cgroup2,landlock,seccomp", ("cgroup2",)), ("two-ids,cgroup", ("two-ids",)),
])
def test_doctor_holds_the_host_against_what_is_demanded(cli, tmp_path, demanded, missing):
    """And says what a server would do: start, or refuse to run anything."""
    path = tmp_path / "kiln.yaml"
    path.write_text(f"sandbox:\n  min_isolation: {demanded}\n  limits: rlimit\n", encoding="utf-8")
    path.chmod(0o644)
    done = cli("doctor", "--json", "--config", str(path))
    told = json.loads(done.stdout)
    host = told["host"]
    assert host["limits"] == "rlimit" and host["min_isolation"] == demanded
    if "two-ids" in missing and host["two_ids"] == "yes":
        missing = ("cgroup",)
    elif "two-ids" in missing:
        missing = ("two-ids", "cgroup")
    assert host["min_isolation.met"] == ("no" if missing else "yes")
    assert done.returncode == (3 if missing else 0) and told["works"] is not bool(missing)
    assert all(wall in host["min_isolation.cost"] for wall in missing)
    words = cli("doctor", "--config", str(path))
    assert words.returncode == done.returncode and ("will NOT be run" in words.stdout) == bool(missing)


def test_doctor_refuses_a_demand_that_it_does_not_know(cli, tmp_path):
    path = tmp_path / "kiln.yaml"
    path.write_text("sandbox:\n  min_isolation: moat\n", encoding="utf-8")
    path.chmod(0o644)
    done = cli("doctor", "--config", str(path))
    assert done.returncode == 1 and "moat" in done.stderr, done


def test_doctor_where_nothing_can_be_made():
    """A host that allows no user namespace: here, one of ours that allows no other."""
    inside = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\""
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", inside, "sh", harness.program("kiln"), "doctor"],
                          env=harness.clean_env(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    assert "NOT" in done.stdout and "sysctl user.max_user_namespaces=" in done.stdout, done


def test_help_lists_every_command(cli):
    done = cli("--help")
    assert done.returncode == 0
    for word in ("serve", "run", "submit", "result", "cancel", "languages", "doctor", "keys", "config"):
        assert word in done.stdout, done.stdout
    for word in ("serve", "run", "languages"):
        told = cli(word, "--help")
        assert told.returncode == 0 and "usage" in told.stdout.lower(), told


def test_version(cli):
    done = cli("--version")
    assert done.returncode == 0 and done.stdout.startswith("kiln "), done


@pytest.mark.parametrize("args, words", [
    (("serv",), ("serv", "serve")),
    (("run",), ("FILE",)),
    (("run", "/no/such/file.py"), ("/no/such/file.py",)),
    (("run", "/etc/hostname"), ("language",)),
    (("serve", "--slotz", "3"), ("--slotz",)),
    (("serve", "--slots", "many"), ("slots", "many")),
    (("serve", "--listen", "nowhere"), ("listen", "nowhere")),
    (("result", "xyz"), ("xyz",)),
])
def test_errors_name_what_is_wrong(cli, args, words):
    done = cli(*args)
    assert done.returncode not in (0, 99) and done.returncode > 0, done
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    assert done.stdout == ""


def test_no_server_is_said_with_what_to_do(cli, scratch):
    path = write(scratch, "x.py", "print(1)")
    done = cli("run", path, env={"KILN_SERVER": "http://127.0.0.1:9"})
    assert done.returncode not in (0, 99), done
    assert "127.0.0.1:9" in done.stderr and "kiln serve" in done.stderr, done.stderr


def test_config_error_has_line_and_column(cli, scratch):
    path = write(scratch, "bad.yaml", "listen: 127.0.0.1:8080\nslotz: 3\n")
    done = cli("config", "--config", path)
    assert done.returncode not in (0, 99), done
    assert f"{path}:2:1" in done.stderr and "slotz" in done.stderr, done.stderr


def test_config_prints_what_is_in_force(cli, scratch):
    path = write(scratch, "good.yaml", "slots: 3\n")
    done = cli("config", "--config", path, env={"KILN_LISTEN": "127.0.0.1:9999"})
    assert done.returncode == 0, done
    assert "slots: 3" in done.stdout and "127.0.0.1:9999" in done.stdout, done.stdout


def test_unknown_variable_is_told(cli):
    done = cli("config", env={"KILN_SLOTZ": "3"})
    assert "KILN_SLOTZ" in done.stderr, done
