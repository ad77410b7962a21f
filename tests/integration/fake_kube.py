# SPDX-License-Identifier: Apache-2.0
"""An API server of Kubernetes that does what it is told to: objects with versions, watches, leases,
preconditions, a kubelet that starts and ends pods, and faults on order. In memory, for tests.

It keeps to what was seen of a real one (1.36): a watch from a version that is gone answers 200 with
an ERROR event of code 410; bookmarks come only if asked for, and not reliably; a DELETE of a running
pod sets a deletionTimestamp first; a PATCH or DELETE that names another version is a 409.

Locks: everything is under one condition, which every change notifies."""

import json
import re
import secrets
import socket
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOURCES = {"pods": "Pod", "podtemplates": "PodTemplate", "leases": "Lease", "nodes": "Node"}
PATH = re.compile(r"^/(?:api/v1|apis/coordination\.k8s\.io/v1)/namespaces/([a-z0-9-]+)/"
                  r"(pods|podtemplates|leases)(?:/([a-z0-9.-]+))?$")
NODES = "/api/v1/nodes"


class Fault:
    """What happens to the next requests of a verb on a resource instead of what should. "verb" is
    get, list, watch, create, update, patch or delete.

    status:   answered at once, with retry_after where given
    after:    the same, but the work was done before: the client does not know
    cut:      the connection is closed without an answer; of a watch: after that many events
    hang:     nothing is answered for that many seconds
    error:    of a watch: this object as its first event, in a 200
    slow:     of a watch: seconds between the bytes of each event
    silent:   of a watch: it stays open and says nothing
    garbage:  of a watch: these bytes instead of an event"""

    def __init__(self, verb, resource, times=1, **what):
        self.verb, self.resource, self.times, self.what = verb, resource, times, what


def reserve_network(port):
    """(N, socket): addresses 127.N.x.y with this port are nobody else's while the socket is open, also
    where the same tests run beside these."""
    while True:
        n = 16 + secrets.randbelow(230)
        s = socket.socket()
        try:
            s.bind((f"127.{n}.255.254", port))
            return n, s
        except OSError:
            s.close()


class Kube:
    def __init__(self, namespace="kiln-test", token=None, port=0, start_s=0.05, pod_port=29464):
        self.namespace, self.token, self.start_s, self.pod_port = namespace, token, start_s, pod_port
        self.lock = threading.Condition(threading.RLock())
        self.version = 1000
        self.compacted = 0          # events up to this version are gone
        self.objects = {r: {} for r in RESOURCES}
        self.events = []            # (version, resource, type, object)
        self.faults = []
        self.requests = []          # (seconds, verb, resource, name, status, body)
        self.capacity = 10**6       # pods that have room on a node
        self.quota = 10**6          # pods that may be created
        self.mode = "run"           # of new pods: run, fail, stick, oom, or a function of the pod
        self.page_max = 10**6
        self.bookmarks = True
        self.listeners = {}         # of running pods, by uid
        self.connections = {}       # accepted there, by uid
        self.next_ip = 0
        self.network, self.reserved = reserve_network(pod_port)
        self.stopping = False
        self.on_run = None          # called with a pod that starts, in place of a listener
        self.on_end = None
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self.handler())
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.sockets = set()
        self.node("node-1")
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self.kubelet, daemon=True).start()

    @property
    def url(self):
        return f"kubernetes:{self.namespace}?server=http://127.0.0.1:{self.port}"

    def close(self):
        with self.lock:
            self.stopping = True
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.cut_all()
        for uid in list(self.listeners):
            self.stop_listener(uid)
        self.reserved.close()

    def go_away(self):
        """As when the API server is stopped: nobody listens, and all connections end."""
        self.server.shutdown()
        self.server.server_close()
        self.cut_all()

    def come_back(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def cut_all(self):
        for s in list(self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # ---- objects ----

    def changed(self, resource, kind, obj):
        """One event; the object gets the next version."""
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, resource, kind, json.loads(json.dumps(obj))))
        self.lock.notify_all()

    def put(self, resource, obj):
        with self.lock:
            meta = obj.setdefault("metadata", {})
            meta.setdefault("namespace", self.namespace)
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            known = meta["name"] in self.objects[resource]
            self.objects[resource][meta["name"]] = obj
            self.changed(resource, "MODIFIED" if known else "ADDED", obj)
            return obj

    def remove(self, resource, name):
        with self.lock:
            obj = self.objects[resource].pop(name, None)
            if obj:
                self.changed(resource, "DELETED", obj)
                if resource == "pods":
                    self.stop_listener(obj["metadata"]["uid"])

    def forget(self, resource, name):
        """Gone without an event, as what happens while nobody watches."""
        with self.lock:
            obj = self.objects[resource].pop(name)
            self.version += 1
            self.stop_listener(obj["metadata"]["uid"])

    def compact(self):
        """Forgets all events so far: a watch from before is too old now."""
        with self.lock:
            self.compacted = self.version
            self.events.clear()

    def template(self, name, image="img:1", slots=1, labels=None, **annotations):
        notes = {"kiln/slots": str(slots), "kiln/port": str(self.pod_port)} | {"kiln/" + k.replace("_", "-"): str(v)
                                              for k, v in annotations.items()}
        old = self.objects["podtemplates"].get(name)
        return self.put("podtemplates", {
            "apiVersion": "v1", "kind": "PodTemplate",
            "metadata": {"name": name, "labels": {"kiln/standby": "true"}, "annotations": notes} |
            ({"uid": old["metadata"]["uid"]} if old else {}),
            "template": {"metadata": {"labels": labels or {"app": "kiln-pod"}},
                         "spec": {"restartPolicy": "Never",
                                  "containers": [{"name": "runner", "image": image,
                                                  "ports": [{"name": "runner",
                                                             "containerPort": self.pod_port}]}]}}})

    def pods(self, **labels):
        with self.lock:
            found = [json.loads(json.dumps(p)) for p in self.objects["pods"].values()]
        return [p for p in found
                if all(p["metadata"].get("labels", {}).get(k.replace("_", "/")) == v
                       for k, v in labels.items())]

    def wait(self, true, seconds=10, what="it"):
        end = time.monotonic() + seconds
        with self.lock:
            while True:
                value = true()
                if value:
                    return value
                if time.monotonic() > end:
                    raise AssertionError(f"{what} did not come true: {len(self.pods())} pods, "
                                         f"last requests {self.requests[-8:]}")
                self.lock.wait(0.02)

    def seen(self, verb, resource=None, name=None, since=0):
        with self.lock:
            return [r for r in self.requests[since:] if r[1] == verb and
                    (not resource or r[2] == resource) and (not name or r[3] == name)]

    def fault(self, verb, resource, times=1, **what):
        with self.lock:
            self.faults.append(Fault(verb, resource, times, **what))

    def take_fault(self, verb, resource):
        with self.lock:
            for f in self.faults:
                if f.verb == verb and f.resource in (resource, None) and f.times > 0:
                    f.times -= 1
                    return f.what
        return {}

    # ---- the kubelet ----

    def set_status(self, name, **status):
        with self.lock:
            pod = self.objects["pods"].get(name)
            if pod:
                pod.setdefault("status", {}).update(status)
                self.changed("pods", "MODIFIED", pod)

    def kubelet(self):
        due = {}
        while not self.stopping:
            with self.lock:
                self.lock.wait(0.01)
                now = time.monotonic()
                for name, pod in list(self.objects["pods"].items()):
                    uid, phase = pod["metadata"]["uid"], pod["status"]["phase"]
                    if "deletionTimestamp" in pod["metadata"]:
                        if now >= pod["ends"]:
                            self.remove("pods", name)
                    elif phase == "Pending" and uid not in due:
                        self.schedule(name, pod, due, now)
                    elif phase == "Pending" and due[uid] is not None and now >= due[uid]:
                        self.start(name, pod)

    def schedule(self, name, pod, due, now):
        with_node = sum(1 for p in self.objects["pods"].values() if p["spec"].get("nodeName") and
                        p["status"]["phase"] in ("Pending", "Running"))
        if with_node >= self.capacity or not self.free_node():
            if not pod["status"].get("conditions"):
                self.set_status(name, conditions=[{"type": "PodScheduled", "status": "False",
                                                   "reason": "Unschedulable",
                                                   "message": "0/1 nodes are available"}])
            return
        pod["spec"]["nodeName"] = self.free_node()
        due[pod["metadata"]["uid"]] = now + self.start_s
        self.set_status(name, conditions=[{"type": "PodScheduled", "status": "True"}])

    def free_node(self):
        """The one with the fewest pods of those that take any."""
        def takes(node):
            return (not node["spec"].get("unschedulable") and
                    node["status"]["conditions"][0]["status"] == "True")

        def load(name):
            return sum(1 for p in self.objects["pods"].values() if p["spec"].get("nodeName") == name)
        return min((n for n, o in self.objects["nodes"].items() if takes(o)), key=load, default=None)

    def node(self, name, ready="True", cordoned=False):
        return self.put("nodes", {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"unschedulable": True} if cordoned else {},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})

    def start(self, name, pod):
        mode = self.mode(pod) if callable(self.mode) else self.mode
        if mode == "stick":
            if not pod["status"].get("containerStatuses"):
                self.set_status(name, containerStatuses=[{"name": "runner", "state": {"waiting": {
                    "reason": "ImagePullBackOff", "message": "no such image"}}}])
        elif mode == "fail":
            self.end(name, "Failed", 1, "Error")
        else:
            self.next_ip += 1
            ip = f"127.{self.network}.{self.next_ip // 250}.{self.next_ip % 250 + 1}"
            if self.on_run:
                self.on_run(name, pod, ip)
            else:
                self.listen(pod["metadata"]["uid"], ip)
            self.set_status(name, phase="Running", podIP=ip, conditions=[
                {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}])

    def end(self, name, phase="Succeeded", code=0, reason="Completed", status_reason=None):
        """The program of a pod ends."""
        with self.lock:
            pod = self.objects["pods"].get(name)
            if not pod:
                return
            self.stop_listener(pod["metadata"]["uid"])
            status = {"phase": phase, "containerStatuses": [{"name": "runner", "state": {
                "terminated": {"exitCode": code, "reason": reason}}}],
                "conditions": [{"type": "PodScheduled", "status": "True"},
                               {"type": "Ready", "status": "False"}]}
            if status_reason:
                status["reason"] = status_reason
            self.set_status(name, **status)

    def listen(self, uid, ip):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((ip, self.pod_port))
        s.listen(64)
        self.listeners[uid] = s
        self.connections[uid] = []

        def accept():
            while True:
                try:
                    self.connections[uid].append(s.accept()[0])
                except (OSError, KeyError):
                    return
        threading.Thread(target=accept, daemon=True).start()

    def stop_listener(self, uid):
        if self.on_end:
            self.on_end(uid)
        s = self.listeners.pop(uid, None)
        if s:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        for c in self.connections.pop(uid, []):
            c.close()

    # ---- HTTP ----

    def handler(self):
        kube = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                kube.sockets.add(self.connection)

            def finish(self):
                kube.sockets.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass

            def log_message(self, *args):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (OSError, ValueError):
                    self.close_connection = True

            def do(self):
                Request(kube, self).run()
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        return Handler


VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Request:
    """One request to the server."""

    def __init__(self, kube, http):
        self.kube, self.http = kube, http
        url = urllib.parse.urlsplit(http.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        length = int(http.headers.get("Content-Length") or 0)
        self.body = http.rfile.read(length) if length else b""
        m = PATH.match(url.path)
        self.resource, self.name = (m.group(2), m.group(3)) if m else (None, None)
        self.known = bool(m) and m.group(1) == kube.namespace
        if url.path == NODES:  # the cluster's, in no namespace
            self.resource, self.name, self.known = "nodes", None, True
        if http.command == "GET":
            self.verb = "get" if self.name else "watch" if self.query.get("watch") else "list"
        else:
            self.verb = VERBS[http.command]

    def log(self, status):
        with self.kube.lock:
            self.kube.requests.append((time.monotonic(), self.verb, self.resource, self.name, status,
                                       self.body.decode()))
            self.kube.lock.notify_all()

    def answer(self, status, obj, headers=()):
        self.log(status)
        data = json.dumps(obj).encode()
        self.http.send_response(status)
        self.http.send_header("Content-Type", "application/json")
        self.http.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.http.send_header(name, value)
        self.http.end_headers()
        self.http.wfile.write(data)

    def refuse(self, status, reason, message, headers=()):
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                             "message": message, "reason": reason, "code": status}, headers)

    def run(self):
        kube = self.kube
        if kube.token and self.http.headers.get("Authorization") != f"Bearer {kube.token}":
            return self.refuse(401, "Unauthorized", "Unauthorized")
        if not self.known:
            return self.refuse(404, "NotFound", "the server could not find the requested resource")
        fault = kube.take_fault(self.verb, self.resource)
        if "hang" in fault:
            self.log(0)
            time.sleep(fault["hang"])
            self.http.close_connection = True
            return None
        if self.verb != "watch" and "cut" in fault:
            self.log(0)
            self.http.close_connection = True
            return None
        if "status" in fault:
            return self.fail(fault["status"], fault)
        if "after" in fault:
            self.answer = lambda *a, **k: None
            getattr(self, self.verb)()
            del self.answer
            return self.fail(fault["after"], fault)
        if self.verb == "watch":
            return self.watch(fault)
        return getattr(self, self.verb)()

    def fail(self, status, fault):
        headers = [("Retry-After", str(fault["retry_after"]))] if "retry_after" in fault else []
        return self.refuse(status, "Fault", f"told to answer {status}", headers)

    # ---- verbs ----

    def selected(self, obj):
        labels = obj["metadata"].get("labels", {})
        for term in filter(None, self.query.get("labelSelector", "").split(",")):
            key, eq, value = term.partition("=")
            if key not in labels or (eq and labels[key] != value):
                return False
        return True

    def list(self):
        kube = self.kube
        with kube.lock:
            names = sorted(n for n, o in kube.objects[self.resource].items() if self.selected(o))
            limit = min(int(self.query.get("limit") or 10**6), kube.page_max)
            after, version = "", str(kube.version)
            if "continue" in self.query:
                version, _, after = self.query["continue"].partition("/")
                if int(version) < kube.compacted:
                    return self.refuse(410, "Expired", "The provided continue parameter is too old")
            page = [n for n in names if n > after][:limit]
            meta = {"resourceVersion": version}
            if page and page[-1] != names[-1]:
                meta["continue"] = f"{version}/{page[-1]}"
            items = [json.loads(json.dumps(kube.objects[self.resource][n])) for n in page]
        return self.answer(200, {"kind": RESOURCES[self.resource] + "List", "metadata": meta,
                                 "items": items})

    def get(self):
        with self.kube.lock:
            obj = self.kube.objects[self.resource].get(self.name)
        if not obj:
            return self.refuse(404, "NotFound", f'{self.resource} "{self.name}" not found')
        return self.answer(200, obj)

    def create(self):
        kube, obj = self.kube, json.loads(self.body)
        with kube.lock:
            name = obj["metadata"]["name"]
            self.name = name
            if name in kube.objects[self.resource]:
                return self.refuse(409, "AlreadyExists", f'{self.resource} "{name}" already exists')
            if self.resource == "pods":
                if len(kube.objects["pods"]) >= kube.quota:
                    return self.refuse(403, "Forbidden", "exceeded quota: pods")
                obj["status"] = {"phase": "Pending"}
            kube.put(self.resource, obj)
        return self.answer(201, obj)

    def conflict(self, obj, version, uid=None):
        return ((version and version != obj["metadata"]["resourceVersion"]) or
                (uid and uid != obj["metadata"]["uid"]))

    def update(self):
        kube, new = self.kube, json.loads(self.body)
        with kube.lock:
            old = kube.objects[self.resource].get(self.name)
            if not old:
                return self.get()
            if self.conflict(old, new["metadata"].get("resourceVersion")):
                return self.refuse(409, "Conflict", "the object has been modified")
            new["metadata"] = old["metadata"] | new["metadata"]
            kube.put(self.resource, new)
        return self.answer(200, new)

    def patch(self):
        kube, change = self.kube, json.loads(self.body)

        def merge(into, what):
            for k, v in what.items():
                if v is None:
                    into.pop(k, None)
                elif isinstance(v, dict):
                    merge(into.setdefault(k, {}), v)
                else:
                    into[k] = v
        with kube.lock:
            obj = kube.objects[self.resource].get(self.name)
            if not obj:
                return self.get()
            if self.conflict(obj, change.get("metadata", {}).get("resourceVersion")):
                return self.refuse(409, "Conflict", "the object has been modified")
            merge(obj, change)
            kube.changed(self.resource, "MODIFIED", obj)
        return self.answer(200, obj)

    def delete(self):
        kube, options = self.kube, json.loads(self.body or b"{}")
        with kube.lock:
            obj = kube.objects[self.resource].get(self.name)
            if not obj:
                return self.get()
            wanted = options.get("preconditions", {})
            if self.conflict(obj, wanted.get("resourceVersion"), wanted.get("uid")):
                return self.refuse(409, "Conflict", "Precondition failed")
            if self.resource == "pods" and obj["status"]["phase"] == "Running":
                if "deletionTimestamp" not in obj["metadata"]:
                    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                    obj["ends"] = time.monotonic() + 0.2
                    kube.changed("pods", "MODIFIED", obj)
            else:
                kube.remove(self.resource, self.name)
        return self.answer(200, obj)

    # ---- watch ----

    def send(self, data, slow=0):
        if not slow:
            self.http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            return
        for i in range(0, len(data), 64):
            piece = data[i:i + 64]
            self.http.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(slow)

    def event(self, kind, obj, slow=0):
        self.send(json.dumps({"type": kind, "object": obj}).encode() + b"\n", slow)

    def watch(self, fault):
        kube, http = self.kube, self.http
        self.log(200)
        http.send_response(200)
        http.send_header("Content-Type", "application/json")
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        http.close_connection = True
        since = int(self.query.get("resourceVersion") or 0)
        end = time.monotonic() + float(self.query.get("timeoutSeconds") or 600)
        left = fault.get("cut", 10**9)
        if "error" in fault or since < kube.compacted:
            self.event("ERROR", fault.get("error") or {
                "kind": "Status", "code": 410, "reason": "Expired",
                "message": f"too old resource version: {since} ({kube.compacted})"})
            http.wfile.write(b"0\r\n\r\n")
            return
        if "garbage" in fault:
            self.send(fault["garbage"])
        self.follow(since, end, left, fault)

    def follow(self, since, end, left, fault):
        kube = self.kube
        told = time.monotonic()
        while time.monotonic() < end and not kube.stopping:
            with kube.lock:
                ready = [e for e in kube.events if e[0] > since and e[1] == self.resource and
                         self.selected(e[3])]
                newest = kube.version  # of what is told with this look, and not of what comes next
                if not ready or "silent" in fault:
                    kube.lock.wait(0.05)
                    ready = []
            for version, _, kind, obj in ready:
                if left <= 0:
                    return
                left -= 1
                self.event(kind, obj, fault.get("slow", 0))
                since, told = version, time.monotonic()
            if left <= 0:
                return
            if kube.bookmarks and not ready and self.query.get("allowWatchBookmarks") and \
                    "silent" not in fault and time.monotonic() - told > 0.3:
                self.event("BOOKMARK", {"kind": RESOURCES[self.resource],
                                        "metadata": {"resourceVersion": str(newest)}})
                since, told = max(since, newest), time.monotonic()
        self.http.wfile.write(b"0\r\n\r\n")
