# SPDX-License-Identifier: Apache-2.0
"""Tasks over PostgreSQL, RabbitMQ and Redis: none is lost when the broker is, and no tenant waits
for another's many. The servers are this file's own."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))
KILN = os.path.join(BUILD, "kiln")
PORT = int(os.environ.get("KILN_STACK_PORT", "27100")) + 220
PATIENCE = 180


def until(what, condition, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


class Stack:
    def __init__(self, directory, port=PORT, *names):
        self.directory = directory
        self.env = os.environ | {"KILN_STACK_DIR": directory, "KILN_STACK_PORT": str(port)}
        self.urls = dict(re.findall(r"KILN_TEST_(\w+)_URL=(\S+)", self.run("up", *names)))
        if not names or "postgres" in names:
            subprocess.run([KILN, "migrate", "--store", self.urls["POSTGRES"]], check=True,
                           stdout=subprocess.DEVNULL, timeout=PATIENCE)

    def run(self, *args, check=True):
        return subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), *args], env=self.env,
                              check=check, stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout

    def sql(self, text):
        return subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text,
                               self.urls["POSTGRES"]], check=True, stdout=subprocess.PIPE, text=True,
                              timeout=PATIENCE).stdout.strip()

    def ctl(self, *args):
        return self.run("rabbitmqctl", *args)

    def queues(self):
        lines = self.ctl("list_queues", "--silent", "name", "messages").splitlines()
        return {name: int(n) for name, n in (line.split() for line in lines)}


class Beside:
    """A stack, with some of its servers somewhere else."""

    def __init__(self, stack, **urls):
        self.urls = stack.urls | urls


@pytest.fixture(scope="module")
def stack():
    with tempfile.TemporaryDirectory(prefix="kiln-stack-") as directory:
        os.chmod(directory, 0o755)
        one = Stack(directory)
        try:
            yield one
        finally:
            one.run("down", check=False)


class Kiln:
    """One process of Kiln."""

    def __init__(self, stack, role="serve", *args, env=None, ready=True):
        self.stack = stack
        self.dir = tempfile.mkdtemp(prefix="kiln-outbox-")
        os.chmod(self.dir, 0o755)
        self.log_path = os.path.join(self.dir, "log")
        command = [KILN, role, "--store", stack.urls["POSTGRES"], "--queue", stack.urls["RABBITMQ"],
                   "--cache", stack.urls["REDIS"], *args]
        if role != "scheduler":
            command += ["--listen", "127.0.0.1:0"]
        if role == "serve":
            command += ["--data-dir", os.path.join(self.dir, "data")]
        if role == "scheduler":
            command += ["--metrics-listen", "127.0.0.1:0"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log,
                                            env=os.environ | {"KILN_SETUP_DIR": "none"} | (env or {}))
        try:
            self.url = until("an address in " + self.log_path, self.find_url)
            until("readiness", lambda: not ready or self.get("/readyz")[0] == 200)
        except BaseException:
            self.end()
            raise

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def find_url(self):
        assert self.process.poll() is None, self.log()
        found = re.search(r"^  (?:address|monitor) +(http://\S+)$", self.log(), re.M)
        return found and found.group(1)

    def ask(self, method, path, body=None, headers=None):
        request = urllib.request.Request(
            self.url + path, method=method, data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"} | (headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(), e.headers

    def get(self, path):
        return self.ask("GET", path)

    def submit(self, code="print(1)", headers=None, **fields):
        status, text, _ = self.ask("POST", "/submit",
                                   {"language": "python", "code": code} | fields, headers)
        assert status == 201, text
        return json.loads(text)["task_id"]

    def result(self, task):
        return json.loads(self.get(f"/result/{task}")[1])

    def done(self, tasks):
        return all(self.result(t)["status"] == "done" for t in tasks)

    def metric(self, name):
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics")[1], re.M)
        return sum(float(v) for v in values)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=PATIENCE)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def submit_many(kiln, n, **fields):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: kiln.submit(**fields), range(n)))


def test_outbox_is_empty_when_all_is_published(stack):
    with Kiln(stack) as kiln:
        tasks = submit_many(kiln, 100)
        until("all results", lambda: kiln.done(tasks))
        until("an empty outbox", lambda: stack.sql("SELECT count(*) FROM outbox") == "0")
        assert kiln.metric("kiln_queue_published_total") >= 100


def test_tasks_are_taken_while_the_broker_is_away_and_run_when_it_is_back(stack):
    with Kiln(stack, "serve", "--queue-max", "60") as kiln:
        until("the first", lambda t=kiln.submit(): kiln.done([t]))
        stack.run("down", "rabbitmq")
        slowest, tasks = 0, []
        for _ in range(50):
            began = time.monotonic()
            tasks.append(kiln.submit())
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2, "a submission waited for the broker"
        # What may wait is bounded here too, and whoever is refused is told when to come again.
        answers = [kiln.ask("POST", "/submit", {"language": "python", "code": "print(1)"})
                   for _ in range(40)]
        refused = [headers for status, _, headers in answers if status == 429]
        tasks += [json.loads(text)["task_id"] for status, text, _ in answers if status == 201]
        assert len(refused) >= 20 and len(tasks) <= 62
        assert all(int(headers["Retry-After"]) >= 1 for headers in refused)
        assert stack.sql("SELECT count(*) FROM outbox") == str(len(tasks))
        stack.run("up", "rabbitmq")
        until("all results", lambda: kiln.done(tasks))
        until("an empty outbox", lambda: stack.sql("SELECT count(*) FROM outbox") == "0")


def test_what_an_api_left_unpublished_is_published_by_a_scheduler(stack):
    """As if it had died between its commit and its publish."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Kiln(stack, "api", "--admit-max", "1") as api:
        tasks = [api.submit(headers={"traceparent": trace}) for _ in range(20)]
        until("notes", lambda: stack.sql("SELECT count(*) FROM outbox") == "19")
        assert stack.sql(f"SELECT count(*) FROM live WHERE traceparent = '{trace}'") == "20"
        api.end(signal.SIGKILL)
    with Kiln(stack) as kiln:
        until("all results", lambda: kiln.done(tasks))


def test_tasks_of_a_broker_that_was_emptied_run_all_the_same(stack):
    with Kiln(stack, "api") as api:
        tasks = submit_many(api, 40)
        until("notes gone", lambda: stack.sql("SELECT count(*) FROM outbox") == "0")
    until("the broker's counts", lambda: stack.queues()["kiln.python.normal"] == 40)
    stack.ctl("delete_queue", "kiln.python.normal")
    with Kiln(stack) as kiln:
        until("all results", lambda: kiln.done(tasks))
        assert kiln.metric("kiln_tasks_found_lost_total") == 40


def test_note_that_comes_after_the_first_was_published_is_published_too(stack):
    """Whoever published a task knows it as such; that it is noted again says that its message came to nothing."""
    secret = os.path.join(stack.directory, "secret")
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
        f.write("5a" * 32 + "\n")
    no_runner = ("--pods=runners:none@127.0.0.1:1", f"--cluster-secret-file={secret}")
    with Kiln(stack, "api") as api, Kiln(stack, "scheduler", *no_runner, ready=False):
        task = api.submit()
        for _ in range(3):
            until("its note gone", lambda: stack.sql("SELECT count(*) FROM outbox") == "0")
            until("its message", lambda: stack.queues()["kiln.python.normal"] == 1)
            stack.ctl("purge_queue", "kiln.python.normal")
            stack.sql("INSERT INTO outbox (id, tenant, language, class, since)"
                      f" SELECT id, tenant, language, class, 0 FROM live WHERE id = '{task}'")
        until("its message", lambda: stack.queues()["kiln.python.normal"] == 1)
    with Kiln(stack) as kiln:
        until("its result", lambda: kiln.done([task]))


def test_queue_deleted_under_a_consumer_loses_nothing(stack):
    with Kiln(stack, "serve", "--slots", "1") as kiln:
        tasks = submit_many(kiln, 30, code="import time; time.sleep(0.3)")
        stack.ctl("delete_queue", "kiln.python.normal")
        tasks += submit_many(kiln, 10)
        until("all results", lambda: kiln.done(tasks))


@pytest.fixture
def small_disk():
    if os.getuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    with tempfile.TemporaryDirectory(prefix="kiln-stack-small-") as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "kiln-test", directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


def fill(path):
    """All the room that is left, less than a page."""
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096):
            try:
                while True:
                    f.write(bytes(size))
            except OSError:
                pass


def test_full_disk_under_the_database(stack, small_disk):
    """What does not fit is refused, and all that was accepted is done when there is room again."""
    database = Stack(small_disk, PORT + 30, "postgres")
    ballast = os.path.join(small_disk, "ballast")
    try:
        stack = Beside(stack, POSTGRES=database.urls["POSTGRES"])
        with Kiln(stack) as kiln:
            accepted, refused, padding = [kiln.submit()], 0, "#" * 300_000
            fill(ballast)
            end = time.monotonic() + PATIENCE
            while refused < 5:
                assert time.monotonic() < end, "the disk did not get full"
                status, text, _ = kiln.ask("POST", "/submit", {"language": "python", "code": padding + os.urandom(9).hex()})
                assert status in (201, 429, 503), text
                refused += status == 503
                if status == 201:
                    accepted.append(json.loads(text)["task_id"])
            assert kiln.get("/healthz")[0] == 200
            os.unlink(ballast)
            database.run("up", "postgres")  # it may have given up
            until("readiness", lambda: kiln.get("/readyz")[0] == 200)
            accepted.append(kiln.submit())
            until("all results", lambda: kiln.done(accepted))
    finally:
        database.run("down", check=False)


def hang(stack, queue, verb):
    """A queue that stands still while its broker goes on, as one whose leader is lost: suspend, resume."""
    stack.ctl("eval", f"sys:{verb}('%2F_{queue}').")


def test_queue_that_hangs_holds_up_no_other(stack):
    with Kiln(stack) as kiln:
        until("the first", lambda t=[kiln.submit(), kiln.submit(language="bash", code="echo")]: kiln.done(t))
        hang(stack, "kiln.python.normal", "suspend")
        try:
            waiting = [kiln.submit()]
            tasks = [kiln.submit(language="bash", code="echo") for _ in range(5)]
            until("results of others", lambda: kiln.done(tasks))
            kiln.end()
            with Kiln(stack) as later:  # whose sessions begin with it
                waiting += [later.submit()]
                tasks += [later.submit(language="bash", code="echo") for _ in range(5)]
                until("results of others", lambda: later.done(tasks))
                until("the log line", lambda: "a queue does not answer" in later.log())
                assert not any(later.done([t]) for t in waiting)
                hang(stack, "kiln.python.normal", "resume")
                until("the rest", lambda: later.done(waiting))
        finally:
            hang(stack, "kiln.python.normal", "resume")


def test_dead_letters_of_tasks_that_wait_are_queued_again(stack):
    """What made the broker give up says nothing of the tasks: here they waited too long."""
    def dead():
        return stack.queues().get("kiln.dead", 0)
    stack.ctl("set_policy", "die", "^kiln.python", '{"message-ttl": 500}', "--apply-to", "queues")
    with Kiln(stack, "api") as api:
        tasks = submit_many(api, 5)
        cancelled = submit_many(api, 2)
        # All seven, but where the broker was too slow: what it does not confirm in time waits for a scheduler.
        later = time.monotonic() + 60
        until("dead letters", lambda: dead() == 7 or (dead() and time.monotonic() > later))
        for task in cancelled:
            assert api.ask("DELETE", f"/tasks/{task}")[0] == 200
    stack.ctl("clear_policy", "die")
    before = dead()
    stack.ctl("eval", 'rabbit_basic:publish(rabbit_misc:r(<<"/">>, exchange, <<"kiln.dead">>),'
              ' <<>>, [], <<"no message of Kiln\'s">>).')
    until("one more", lambda: dead() > before)
    with Kiln(stack) as kiln:
        until("all results", lambda: kiln.done(tasks))
        until("what cannot be read", lambda: stack.queues().get("kiln.dead") == 1)
        assert all(kiln.result(t)["status"] == "cancelled" for t in cancelled)
    shown = subprocess.run([KILN, "queue", "--json", "--queue", stack.urls["RABBITMQ"],
                            "--store", stack.urls["POSTGRES"]], check=True,
                           stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout
    assert json.loads(shown)["dead_letters_total"] == 1
    assert json.loads(shown)["outbox"] == {"tasks": 0, "oldest_at": None}
    stack.ctl("purge_queue", "kiln.dead")


MANY = 100000


def add_many(stack, like):
    """100,000 tasks of a tenant "many", as copies of a task that was submitted."""
    stack.sql(f"""
        CREATE TEMP TABLE ids AS SELECT
          (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000a000' || lpad(to_hex(i), 12, '0'))::uuid AS id FROM generate_series(1, {MANY}) AS i;
        INSERT INTO task SELECT ids.id, 'many', language, class, created, 0, head, whole
          FROM ids, task WHERE task.id = '{like}';
        INSERT INTO live (id, tenant, language, class, deadline)
          SELECT id, 'many', 'python', 1, 0 FROM ids;
        INSERT INTO outbox SELECT id, 'many', 'python', 1, 0 FROM ids;""")


def test_many_tasks_of_one_tenant_do_not_delay_another(stack):
    slots, code = 2, "import time; time.sleep(0.05)"
    args = ["--slots", str(slots), "--queue-max", str(10 * MANY)]
    with Kiln(stack, "serve", *args) as kiln:
        like = kiln.submit(code)
        until("the first", lambda: kiln.done([like]))
        add_many(stack, like)
        finished = "SELECT count(*) FROM result JOIN task USING (id) WHERE tenant = 'many'"
        for _ in range(5):
            before = int(stack.sql(finished))
            until("tasks of many", lambda n=before: int(stack.sql(finished)) > n + 20)
            task = kiln.submit(code)
            until("the other's task", lambda t=task: kiln.done([t]))
            between = int(stack.sql(f"""
                SELECT count(*) FROM result AS r JOIN task AS t USING (id),
                  (SELECT created, started FROM task JOIN result USING (id)
                   WHERE id = '{task}') AS b
                WHERE t.tenant = 'many' AND r.started > b.created AND r.started < b.started"""))
            # Behind those that run, or are on their way to a slot, it is the next.
            assert between <= 2 * slots, between
        assert int(stack.sql("SELECT count(*) FROM outbox")) > MANY / 2
        # What is finished is acknowledged a moment later.
        assert stack.queues()["kiln.python.normal"] <= 64 + 2 * slots
        assert kiln.metric("kiln_outbox_tasks") > 0
        kiln.end(signal.SIGKILL)
    stack.sql("DELETE FROM live WHERE tenant = 'many'; DELETE FROM outbox WHERE tenant = 'many'")
