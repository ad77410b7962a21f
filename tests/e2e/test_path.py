# SPDX-License-Identifier: Apache-2.0
"""The path: submit, wait, result, in every language, with everything a submission may carry."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid

import pytest

import harness
from harness import COMPILED, b64, problem
from programs import ALL, HELLO, LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_hello(server, language):
    task = server.run(language, HELLO[language])
    assert (task["status"], task["outcome"], task["exit_code"]) == ("done", "ok", 0), task
    assert (task["stdout"], task["stderr"]) == ("hello\n", "")
    assert task["language"] == language
    assert task["attempt"] == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_arguments_files_stdin_stderr_and_exit_code(server, language):
    task = server.run(language, ALL[language], args=["one", "two words", "dre\u00ef"],
                      stdin="from stdin\n", files=[{"name": "data.txt", "content": "from a file\n"}])
    assert (task["outcome"], task["exit_code"]) == ("runtime_error", 7), task
    assert task["stdout"] == "one|two words|dre\u00ef\nfrom a file\nfrom stdin\n", task
    assert task["stderr"] == "to stderr\n", task


def test_answer_of_submit_names_the_task(server):
    answer = server.post("/submit", {"language": "bash", "code": "true"})
    assert answer.status == 201
    assert set(answer.json) >= {"task_id", "status"}
    task_id = answer.json["task_id"]
    assert uuid.UUID(task_id).version == 7
    assert answer.headers["Location"] == f"/result/{task_id}"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert server.wait(task_id)["outcome"] == "ok"


def test_versioned_path_is_the_same(server):
    answer = server.post("/v1/submit?wait=20", {"language": "bash", "code": "echo v1"})
    assert answer.status == 200, answer
    assert answer.json["stdout"] == "v1\n"


def test_alias_of_a_language_is_resolved(server):
    assert server.run("c++", HELLO["cpp"])["language"] == "cpp"


def test_entry_names_the_file_to_run(server):
    files = [{"name": "start.py", "content": "import words\nprint(words.WORD)"},
             {"name": "words.py", "content": "WORD = 'from a module'"}]
    task = server.run("python", files=files, entry="start.py")
    assert task["stdout"] == "from a module\n", task


def test_files_without_code_run_the_default_source(server):
    task = server.run("c", files=[{"name": "main.c", "content": HELLO["c"]}])
    assert task["stdout"] == "hello\n", task


def test_several_source_files_and_a_header(server):
    code = '#include <stdio.h>\n#include "answer.h"\nint main(void) { printf("%d\\n", ANSWER); }'
    task = server.run("c", code, files=[{"name": "answer.h", "content": "#define ANSWER 42\n"}])
    assert task["stdout"] == "42\n", task


def test_everything_may_be_base64(server):
    code = "import sys\ndata = sys.stdin.buffer.read() + open('x.bin', 'rb').read()\nprint(data.hex())"
    task = server.run("python", b64(code.encode()), code_encoding="base64", stdin=b64(b"\x00\xff"),
                      stdin_encoding="base64",
                      files=[{"name": "x.bin", "content": b64(b"\x80\n"), "encoding": "base64"}])
    assert task["stdout"] == "00ff800a\n", task


def test_stdin_that_is_not_given_is_empty(server):
    task = server.run("python", "import sys\nprint(repr(sys.stdin.read()))")
    assert task["stdout"] == "''\n"


def test_large_stdin_arrives_whole(server):
    code = "import hashlib, sys\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    text = "".join(chr(33 + i % 90) for i in range(3_000_000))
    import hashlib
    task = server.run("python", code, stdin=text)
    assert task["stdout"].strip() == hashlib.sha256(text.encode()).hexdigest()


def test_stdin_that_nobody_reads_hurts_nobody(server):
    assert server.run("bash", "echo done", stdin="x" * 1_000_000)["outcome"] == "ok"


def test_output_that_is_not_utf8_is_base64(server):
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)))\nsys.stderr.write('fine\\n')"
    task = server.run("python", code)
    assert task["stdout_encoding"] == "base64"
    assert base64.b64decode(task["stdout"]) == bytes(range(256))
    assert (task["stderr_encoding"], task["stderr"]) == ("utf8", "fine\n")


def test_nul_and_control_characters_survive_as_text(server):
    task = server.run("python", "print('a\\x00b\\x1b[1m\\x7f\\u2028\\U0001f525', end='')")
    assert (task["stdout_encoding"], task["stdout"]) == ("utf8", "a\x00b\x1b[1m\x7f\u2028\U0001f525")


def test_surrogates_in_a_request_are_characters(server):
    body = '{"language": "python", "code": "print(\\"\\ud83d\\ude00\\")"}'
    answer = server.post("/submit?wait=20", body)
    assert answer.json["stdout"] == "\U0001f600\n", answer


def test_usage_and_isolation_are_told(server):
    task = server.run("python", "x = bytearray(40 << 20)\nfor i in range(10**6): pass")
    usage, isolation = task["usage"], task["isolation"]
    assert 0 < usage["cpu_ms"] <= usage["wall_ms"] * 4 + 50, usage
    assert usage["wall_ms"] > 0
    if isolation["limits"] != "rlimit":
        assert 40 << 20 < usage["memory_bytes"] < 120 << 20, usage
    assert isolation["level"] == "sandbox"
    assert isolation["namespaces"] is True
    assert isolation["seccomp"] is True
    assert isinstance(isolation["landlock"], int)
    assert isolation["standby"] in ("none", "sandbox", "exec", "fork", "resident")
    assert task["pod"]
    line = task["timeline"]
    assert line["queued_at"] <= line["started_at"] <= line["finished_at"], line


def test_second_compile_comes_from_the_cache(server):
    code = f'#include <stdio.h>\nint main(void) {{ puts("{uuid.uuid4()}"); }}'
    first, second = server.run("c", code), server.run("c", code)
    assert first["compile"]["cached"] is False
    assert second["compile"]["cached"] is True
    assert first["compile"]["exit_code"] == second["compile"]["exit_code"] == 0
    assert first["stdout"] == second["stdout"]


def test_cache_knows_other_files_apart(server):
    code = '#include <stdio.h>\n#include "n.h"\nint main(void) { printf("%d\\n", N); }'
    outputs = [server.run("c", code, files=[{"name": "n.h", "content": f"#define N {n}\n"}])["stdout"]
               for n in (1, 2, 1)]
    assert outputs == ["1\n", "2\n", "1\n"]


def test_compiler_warnings_are_told_beside_ok(server):
    task = server.run("c", "#warning look here\nint main(void) { return 0; }")
    assert task["outcome"] == "ok"
    assert "look here" in task["compile"]["output"]


def test_tasks_leave_nothing_for_the_next(server):
    code = '''
import os
print(sorted(os.listdir(".")), sorted(os.listdir("/tmp")), sorted(os.listdir("/dev/shm")))
for folder in (".", "/tmp", "/dev/shm"):
    open(os.path.join(folder, "left-behind"), "w").write("x")
'''
    first = server.run("python", code)
    assert first["outcome"] == "ok", first
    for _ in range(8):
        assert server.run("python", code)["stdout"] == first["stdout"]


def test_environment_of_a_task_is_its_own(server):
    task = server.run("python", "import os\nprint(sorted(os.environ))\nprint(os.getcwd())")
    assert "KILN" not in task["stdout"] and "ASAN" not in task["stdout"], task
    assert task["stdout"].splitlines()[1] == "/box"


def test_a_task_sees_only_itself(server):
    code = '''
import os, socket
print(os.path.exists("/root"), os.path.exists("/home"), os.path.exists("/work"), os.path.exists("/var/lib/dpkg"))
print(len([p for p in os.listdir("/proc") if p.isdigit()]) if os.path.isdir("/proc") else 2)
print(open("/etc/passwd").read().count("\\n") < 8 if os.path.exists("/etc/passwd") else True)
try:
    socket.create_connection(("127.0.0.1", PORT), 2)
    print("reached the server")
except OSError:
    print("no network")
'''.replace("PORT", str(server.port))
    lines = server.run("python", code)["stdout"].splitlines()
    assert lines[0] == "False False False False", lines
    assert int(lines[1]) <= 3
    assert lines[2] == "True"
    assert lines[3] == "no network"


def test_languages_are_listed_with_versions(server):
    answer = server.get("/languages")
    assert answer.status == 200
    listed = answer.json["languages"]
    by_name = {entry["name"]: entry for entry in listed}
    assert set(LANGUAGES) <= set(by_name)
    for name in LANGUAGES:
        assert by_name[name]["installed"] is True, by_name[name]
        assert by_name[name]["version"], by_name[name]
    assert "c++" in by_name["cpp"]["aliases"]


def test_health_ready_metrics_and_contract(server):
    assert server.get("/healthz").status == 200
    assert server.get("/readyz").status == 200
    metrics = server.get("/metrics")
    assert metrics.status == 200
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert b"kiln_build_info{" in metrics.body
    assert b"# HELP kiln_" in metrics.body
    contract = server.get("/openapi.json")
    assert contract.status == 200
    assert contract.json["openapi"].startswith("3.1")
    assert "/submit" in contract.json["paths"]


def test_metrics_count_what_was_done(server):
    def finished():
        total = 0.0
        for line in server.get("/metrics").body.decode().splitlines():
            if line.startswith("kiln_tasks_finished_total{") and 'language="bash"' in line:
                total += float(line.split()[-1])
        return total
    before = finished()
    for _ in range(3):
        server.run("bash", "true")
    assert finished() == before + 3


def test_head_and_unknown_paths(server):
    problem(server.get("/nothing/here"), 404)
    answer = server.request("PUT", "/submit", {"language": "bash", "code": "true"})
    problem(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_result_of_an_unknown_task(server):
    problem(server.get("/result/01900000-0000-7000-8000-000000000000"), 404)
    problem(server.request("DELETE", "/tasks/01900000-0000-7000-8000-000000000000"), 404)


@pytest.mark.parametrize("bad", ["1", "not-a-uuid", "01900000-0000-7000-8000-00000000000",
                                 "01900000-0000-7000-8000-0000000000000", "%00", "..%2f..%2fetc",
                                 "01900000_0000_7000_8000_000000000000", "\u00e9".encode().hex()])
def test_ids_that_are_no_uuids(server, bad):
    problem(server.get(f"/result/{bad}"), 400)
    problem(server.request("DELETE", f"/tasks/{bad}"), 400)


def test_results_are_json_objects_with_one_of_each_key(server):
    task_id = server.submit("bash", "echo x")
    server.wait(task_id)
    body = server.get(f"/result/{task_id}").body.decode()
    pairs = []
    json.loads(body, object_pairs_hook=lambda p: pairs.append([k for k, _ in p]))
    for keys in pairs:
        assert len(keys) == len(set(keys)), keys


@pytest.mark.parametrize("language", COMPILED)
def test_compiled_languages_tell_of_their_compiler(server, language):
    task = server.run(language, HELLO[language])
    compiled = task["compile"]
    assert compiled["exit_code"] == 0
    assert isinstance(compiled["cached"], bool)
    assert compiled["cpu_ms"] >= 0 and compiled["wall_ms"] >= 0


def test_nul_in_contents_is_a_character_like_any_other(server):
    code = "import sys\nprint(repr(sys.stdin.read()), repr(open('d').read()), end='\\0')"
    task = server.run("python", code, stdin="a\0b", files=[{"name": "d", "content": "c\0"}])
    assert task["stdout"] == "'a\\x00b' 'c\\x00'\0", task


def test_interpreter_that_stands_by_and_one_that_may_not(make_server, scratch):
    languages = tempfile.mkdtemp(dir=scratch)
    os.chmod(languages, 0o755)
    shutil.copy(os.path.join(harness.ROOT, "languages", "javascript.yaml"), languages)
    server = make_server(start=False, args=("--languages", languages, "--standby-bytes=256MiB", "--fork-bytes=0"))
    server.env["KILN_SETUP_DIR"] = os.path.join(server.directory, "setup")
    server.start()
    seen = set()

    def standby(**more):
        task = server.run("javascript", 'console.log("hello")', **more)
        assert (task["outcome"], task["stdout"]) == ("ok", "hello\n"), task
        return task["isolation"]["standby"]
    harness.wait_until(lambda: standby() == "exec", what="a task that had a standby")
    for _ in range(5):
        seen.add(standby(standby=False))
        time.sleep(0.2)
    assert "exec" not in seen

    def metric(name):
        text = server.get("/metrics").body.decode()
        found = re.findall(rf'(?m)^kiln_{name}}}? (\S+)$', text)
        return float(found[0]) if found else 0
    language = 'language="javascript",step="run"'
    harness.wait_until(lambda: metric(f"standbys{{{language}") == 2, seconds=20, what="two that wait")
    used, free = (metric(f'standby_budget_bytes{{state="{state}"') for state in ("used", "free"))
    assert used >= 2 * 48 << 20 and used + free == 256 << 20
    held = [metric(f'standby_memory_bytes{{{language},source="{source}"') for source in ("cgroup", "declared")]
    assert sum(held) > 2 << 20 and sum(1 for n in held if n) == 1, held


def test_benchmark_measures_it_by_its_driver(server, scratch):
    report = os.path.join(tempfile.mkdtemp(dir=scratch), "report.json")
    done = subprocess.run(
        ["/usr/bin/python3", os.path.join(harness.ROOT, "bench", "run.py"), "--build", harness.BUILD, "--quick",
         "--driver", "kiln", "--url", f"http://127.0.0.1:{server.port}", "--only", "python,c-unseen",
         "--pid", str(server.process.pid), "--report", report],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout
    with open(report, encoding="utf-8") as f:
        programs = json.load(f)["driver"]["programs"]
    assert [p["key"] for p in programs] == ["python", "c-unseen"]
    for program in programs:
        for one in [*program["closed"], program["paced"]]:
            assert one["errors"] == 0 and one["n"] > 0, one
        assert program["paced"]["p50_ms"] > program["floor"]["p50_ms"] / 4 and program["closed"][2]["cpu_ms"] > 0
