# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the server: keys, tenants, --open, and web pages on the same machine."""

import socket
import subprocess
import time

import pytest

import harness
from harness import Client, problem


def with_two_keys(server, cli):
    keys = {}
    for name in ("alice", "bob"):
        done = cli("keys", "add", name, "--data-dir", server.data)
        assert done.returncode == 0, done
        keys[name] = done.stdout.split()[-1]
    server.key = keys["alice"]
    server.start()
    return server, Client(server.port, keys["alice"]), Client(server.port, keys["bob"])


@pytest.fixture
def keyed(make_server, cli):
    """A server with two keys; returns it without a key, and a client for each."""
    return with_two_keys(make_server(start=False), cli)


def test_key_is_needed_once_there_is_one(keyed):
    server, alice, _ = keyed
    stranger = Client(server.port)
    for method, path in (("POST", "/submit"), ("GET", "/tasks"),
                         ("GET", "/result/01900000-0000-7000-8000-000000000000"),
                         ("DELETE", "/tasks/01900000-0000-7000-8000-000000000000")):
        body = {"language": "bash", "code": "true"} if method == "POST" else None
        answer = stranger.request(method, path, body)
        problem(answer, 401)
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        problem(Client(server.port, "kiln_wrong").request(method, path, body), 401)
    assert stranger.get("/healthz").status == 200
    assert stranger.get("/readyz").status == 200
    assert alice.run("bash", "echo mine")["stdout"] == "mine\n"


def test_one_tenant_sees_nothing_of_another(keyed):
    _, alice, bob = keyed
    task_id = alice.submit("bash", "echo secret")
    alice.wait(task_id)
    problem(bob.get(f"/result/{task_id}"), 404)
    problem(bob.cancel(task_id), 404)
    assert bob.get("/tasks").json["tasks"] == []
    assert [t["task_id"] for t in alice.get("/tasks").json["tasks"]] == [task_id]


def test_idempotency_keys_of_tenants_are_apart(keyed):
    _, alice, bob = keyed
    body, headers = {"language": "bash", "code": "true"}, {"Idempotency-Key": "same"}
    one, two = alice.post("/submit", body, headers=headers), bob.post("/submit", body, headers=headers)
    assert (one.status, two.status) == (201, 201)
    assert one.json["task_id"] != two.json["task_id"]


def test_compile_cache_of_tenants_is_apart(keyed):
    _, alice, bob = keyed
    code = "int main(void) { return 0; } /* apart */"
    assert alice.run("c", code)["compile"]["cached"] is False
    assert alice.run("c", code)["compile"]["cached"] is True
    assert bob.run("c", code)["compile"]["cached"] is False
    assert bob.run("c", code)["compile"]["cached"] is True


def test_compile_cache_can_be_shared_by_the_operator(make_server, cli):
    server = make_server(start=False, config={"compile_cache_shared": True})
    _, alice, bob = with_two_keys(server, cli)
    code = '#include <stdio.h>\nint main(void) { puts("same"); }'
    assert alice.run("c", code)["compile"]["cached"] is False
    theirs = bob.run("c", code)
    assert (theirs["compile"]["cached"], theirs["stdout"]) == (True, "same\n")
    assert bob.run("c", code.replace("same", "mine"))["compile"]["cached"] is False


def test_revoked_key_is_refused(make_server, cli):
    server = make_server(start=False)
    first = cli("keys", "add", "first", "--data-dir", server.data).stdout.split()[-1]
    second = cli("keys", "add", "second", "--data-dir", server.data).stdout.split()[-1]
    listed = cli("keys", "list", "--data-dir", server.data)
    assert "first" in listed.stdout and first not in listed.stdout, listed
    assert cli("keys", "revoke", "first", "--data-dir", server.data).returncode == 0
    server.key = second
    server.start()
    problem(Client(server.port, first).get("/tasks"), 401)
    assert server.get("/tasks").status == 200


def test_key_is_replaced_without_a_gap(make_server, cli):
    server = make_server(start=False)

    def keys(*words, code=0):
        done = cli("keys", *words, "--data-dir", server.data)
        assert done.returncode == code, done
        return done

    def client(done):
        return Client(server.port, done.stdout.split()[-1])

    first = client(keys("add", "bob"))
    server.key = first.key
    server.start()
    task_id = first.submit("bash", "echo mine")
    assert "--tenant" in keys("add", "bob", code=1).stderr
    second = client(keys("add", "bob-2", "--tenant", "bob"))
    harness.wait_until(lambda: second.get("/tasks").status == 200, what="the second key")
    assert first.get("/tasks").status == 200
    assert second.wait(task_id)["stdout"] == "mine\n", "one tenant, whatever its key"
    keys("revoke", "bob")
    harness.wait_until(lambda: first.get("/tasks").status == 401, what="the first is revoked")
    assert second.get("/tasks").status == 200
    again = client(keys("add", "bob", "--tenant=bob"))
    harness.wait_until(lambda: again.get(f"/result/{task_id}").status == 200, what="the name again")
    assert first.get("/tasks").status == 401
    rows = [line.split() for line in keys("list").stdout.splitlines()]
    assert [(r[0], r[1], r[3]) for r in rows[1:]] == [("bob", "bob", "-"), ("bob-2", "bob", "-")]
    server.key = again.key


def test_server_whose_last_key_is_revoked_stays_locked(make_server, cli):
    server = make_server(start=False)

    def keys(*words, code=0):
        done = cli("keys", *words, "--data-dir", server.data)
        assert done.returncode == code, done
        return done

    server.key = keys("add", "only").stdout.split()[-1]
    assert "revoke" in keys("unlock", code=1).stderr
    keys("revoke", "only")
    server.start()
    problem(Client(server.port).get("/tasks"), 401)
    harness.wait_until(lambda: "none is in force" in server.log_text(), what="told at the start")
    assert "next start" in keys("unlock").stderr
    problem(Client(server.port).get("/tasks"), 401)
    server.stop()
    server.key = None
    server.start()
    assert Client(server.port).get("/tasks").status == 200


@pytest.mark.parametrize("words,hint", [
    (["add", "b", "--tenant"], "needs a value"), (["add", "b", "--tenant", "a/b"], "no name"),
    (["revoke", "b", "--tenant", "b"], "--tenant"), (["add"], "usage"), (["lost"], "usage")])
def test_wrong_key_commands_say_what_is_wrong(cli, scratch, words, hint):
    done = cli("keys", *words, "--data-dir", str(scratch))
    assert done.returncode == 64 and hint in done.stderr, done


def test_tenant_that_submits_too_fast_is_told_when_to_come_again(make_server, cli):
    server = make_server(config={"tenant_rate": 6, "tenant_burst": 3}, start=False)
    busy, calm = (cli("keys", "add", name, "--data-dir", server.data).stdout.split()[-1]
                  for name in ("busy", "calm"))
    server.key = busy
    server.start()
    body = {"language": "bash", "code": "true"}
    answers = [Client(server.port, busy).post("/submit", body) for _ in range(5)]
    assert [a.status for a in answers] == [201] * 3 + [429] * 2
    told = problem(answers[-1], 429)
    assert (told["code"], told["ceiling"]) == ("rate-limited", 6)
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 10
    assert Client(server.port, calm).post("/submit", body).status == 201
    # An own limit takes the place of the configured one, without a restart.
    done = cli("tenants", "set", "busy", "rate=0", "--data-dir", server.data)
    assert done.returncode == 0, done
    assert "rate=0" in cli("tenants", "list", "--data-dir", server.data).stdout
    harness.wait_until(lambda: Client(server.port, busy).post("/submit", body).status == 201,
                       what="the new limit")


def test_tenant_may_not_fill_the_queue(make_server):
    server = make_server(config={"tenant_queued_max": 5}, slots=1)
    client = Client(server.port)
    blocker = client.submit("bash", "sleep 30", limits={"wall_ms": 40000})
    harness.wait_until(lambda: client.get(f"/result/{blocker}").json["status"] == "running",
                       what="the blocker")
    time.sleep(1.1)  # the blocker counts as waiting until the rows are counted again
    body = {"language": "bash", "code": "true"}
    answers = [client.post("/submit", body) for _ in range(8)]
    assert [a.status for a in answers] == [201] * 5 + [429] * 3
    told = problem(answers[-1], 429)
    assert (told["code"], told["ceiling"]) == ("quota-exceeded", 5)
    client.cancel(blocker)
    for answer in answers[:5]:
        client.wait(answer.json["task_id"])
    harness.wait_until(lambda: client.post("/submit", body).status == 201, what="room")


def test_limits_of_a_tenant_without_a_key_are_kept_with_a_warning(cli, scratch):
    def kiln(*words):
        done = cli(*words, "--data-dir", str(scratch) + "/d")
        assert done.returncode == 0, done
        return done.stderr

    # Without keys all submissions are the tenant "default"'s.
    assert kiln("tenants", "set", "default", "rate=1") == ""
    warning = 'no key of tenant "acme" is in force'
    assert warning in kiln("tenants", "set", "acme", "rate=1")
    assert warning in kiln("tenants", "unset", "acme")
    kiln("keys", "add", "one", "--tenant", "acme")
    assert kiln("tenants", "set", "acme", "rate=1") == ""
    kiln("keys", "revoke", "one")
    assert warning in kiln("tenants", "set", "acme", "rate=2")
    assert 'tenant "one"' in kiln("tenants", "set", "one", "rate=2"), "the key's name is not its tenant"
    assert 'tenant "default"' in kiln("tenants", "set", "default", "rate=1")
    assert cli("tenants", "list", "--data-dir", str(scratch) + "/d").stdout.split() == \
        ["acme", "rate=2", "default", "rate=1", "one", "rate=2"]


@pytest.mark.parametrize("words,hint", [
    (["set", "acme"], "number of arguments"), (["set", "a/b", "rate=1"], "no name"),
    (["set", "acme", "rate=-1"], "rate=-1"), (["set", "acme", "speed=1"], "speed=1"),
    (["unset", "acme", "rate"], "number of arguments"), (["lost"], "usage")])
def test_wrong_tenant_commands_say_what_is_wrong(cli, scratch, words, hint):
    done = cli("tenants", *words, "--data-dir", str(scratch))
    assert done.returncode == 64 and hint in done.stderr, done


def test_keys_are_not_in_the_log(keyed):
    server, alice, bob = keyed
    alice.run("bash", "true")
    text = server.log_text()
    assert alice.key not in text and bob.key not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0",
                                  "localhost.evil.example", "10.0.0.1"])
def test_foreign_host_is_refused(server, host):
    problem(server.get("/tasks", headers={"Host": host}), 403, "Host")
    problem(server.post("/submit", {"language": "bash", "code": "true"}, headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_own_names_are_fine(server, host):
    assert server.get("/tasks", headers={"Host": f"{host}:{server.port}"}).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null",
                                    "http://localhost:1"])
def test_foreign_origin_is_refused(server, origin):
    headers = {"Origin": origin}
    problem(server.post("/submit", {"language": "bash", "code": "true"}, headers=headers), 403, "Origin")
    assert "Access-Control-Allow-Origin" not in server.get("/languages", headers=headers).headers


def test_other_addresses_need_keys_or_open(scratch):
    def serve(*args):
        port = harness.free_port()
        return subprocess.run([harness.program("kiln"), "serve", "--listen", f"0.0.0.0:{port}",
                               "--data-dir", scratch + "/refused", *args], stdin=subprocess.DEVNULL,
                              env=harness.clean_env(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=harness.PATIENCE, check=False)
    done = serve()
    assert done.returncode not in (0, 99) and done.returncode > 0, done
    assert "--open" in done.stdout and "kiln keys add" in done.stdout, done.stdout


def test_open_server_takes_all_addresses_and_hosts(make_server):
    server = make_server(start=False)
    server.argv[server.argv.index("--listen") + 1] = f"0.0.0.0:{server.port}"
    server.argv.append("--open")
    server.start()
    assert server.get("/tasks", headers={"Host": "kiln.example"}).status == 200
    with socket.create_connection(("127.0.0.2", server.port), 5):
        pass


def test_default_listens_on_loopback_only(server):
    with open("/proc/net/tcp", encoding="ascii") as f:
        listening = [line.split()[1] for line in f if line.split()[3] == "0A"]
    ours = [a for a in listening if a.endswith(f":{server.port:04X}")]
    assert ours == [f"0100007F:{server.port:04X}"], ours
