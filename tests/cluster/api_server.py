# SPDX-License-Identifier: Apache-2.0
"""A real API server that has no nodes: the test binds pods, says that they run, and ends them, as a
kubelet does. Named by the environment:

KILN_TEST_KUBE_SERVER   https://HOST:PORT
KILN_TEST_KUBE_CA       file with the certificate of its authority
KILN_TEST_KUBE_TOKEN    file with the token of an administrator

Everything happens in the namespace of deploy/kubernetes/base, which must have no pods."""

import json
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMESPACE = "code-exec-system"
NAMES = ("KILN_TEST_KUBE_SERVER", "KILN_TEST_KUBE_CA", "KILN_TEST_KUBE_TOKEN")
MERGE = "application/merge-patch+json"
PORT = 29466


def missing():
    return [name for name in NAMES if not os.environ.get(name)]


class ApiServer:
    def __init__(self, directory):
        self.server, self.ca, token_file = (os.environ[name] for name in NAMES)
        with open(token_file, encoding="ascii") as f:
            self.token = f.read().strip()
        self.context = ssl.create_default_context(cafile=self.ca)
        self.listeners, self.stopping, self.next_ip = {}, False, 0
        self.kubectl("apply", "-k", os.path.join(ROOT, "deploy", "kubernetes", "base"))
        assert not self.pods(), "the namespace is in use"
        # As the schedulers have it: no more rights than the manifests give.
        self.scheduler_token = os.path.join(directory, "token")
        with open(os.open(self.scheduler_token, os.O_WRONLY | os.O_CREAT, 0o600), "w",
                  encoding="ascii") as f:
            f.write(self.kubectl("create", "token", "kiln-scheduler"))
        threading.Thread(target=self.kubelet, daemon=True).start()

    @property
    def url(self):
        return (f"kubernetes:{NAMESPACE}?server={self.server}&ca={self.ca}"
                f"&token={self.scheduler_token}")

    def kubectl(self, *args, **more):
        argv = ["kubectl", f"--server={self.server}", f"--certificate-authority={self.ca}",
                f"--token={self.token}", f"--namespace={NAMESPACE}", *args]
        return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE, **more).stdout

    def call(self, method, path, body=None, kind="application/json", token=None):
        """(status, object); paths that begin with a slash are whole."""
        if not path.startswith("/"):
            path = f"/api/v1/namespaces/{NAMESPACE}/{path}"
        request = urllib.request.Request(
            self.server + path, method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer " + (token or self.token), "Content-Type": kind})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())

    def may(self, verb, resource, group="", name=""):
        """Whether a scheduler may."""
        with open(self.scheduler_token, encoding="ascii") as f:
            token = f.read().strip()
        where = {"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource,
                 "name": name}
        _, review = self.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                              {"apiVersion": "authorization.k8s.io/v1",
                               "kind": "SelfSubjectAccessReview",
                               "spec": {"resourceAttributes": where}}, token=token)
        return review["status"]["allowed"]

    def template(self, image, **notes):
        self.kubectl("apply", "-f", "-", input=json.dumps({
            "apiVersion": "v1", "kind": "PodTemplate",
            "metadata": {"name": "python", "labels": {"kiln/standby": "true"},
                         "annotations": {"kiln/port": str(PORT)} |
                         {"kiln/" + k: v for k, v in notes.items()}},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "kiln-runner"}},
                "spec": {
                    "restartPolicy": "Never", "hostUsers": False, "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001,
                                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{"name": "runner", "image": image, "securityContext": {
                        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                        "procMount": "Unmasked", "capabilities": {"drop": ["ALL"]}}}]}}}))

    def pods(self):
        return self.call("GET", "pods?labelSelector=kiln/pool")[1]["items"]

    def running(self, image=None):
        return sorted(p["metadata"]["name"] for p in self.pods()
                      if p["status"]["phase"] == "Running" and
                      "deletionTimestamp" not in p["metadata"] and
                      image in (None, p["spec"]["containers"][0]["image"]))

    def wait(self, true, seconds=30, what="it"):
        end = time.monotonic() + seconds
        while True:
            value = true()
            if value:
                return value
            assert time.monotonic() < end, f"{what} did not come true"
            time.sleep(0.1)

    # ---- the kubelet ----

    def kubelet(self):
        while not self.stopping:
            for pod in self.pods():
                self.serve(pod)
            time.sleep(0.1)

    def serve(self, pod):
        name = pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            self.stop(name)
            self.call("DELETE", f"pods/{name}", {"gracePeriodSeconds": 0})
        elif not pod["spec"].get("nodeName"):
            self.call("POST", f"pods/{name}/binding",
                      {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                       "target": {"kind": "Node", "name": "node-1"}})
        elif pod["status"]["phase"] == "Pending":
            self.next_ip += 1
            ip = f"127.12.0.{self.next_ip}"
            self.listen(name, ip)
            self.call("PATCH", f"pods/{name}/status", {"status": {
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}]}}, MERGE)

    def listen(self, name, ip):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((ip, PORT))
        s.listen(16)
        self.listeners[name] = [s]

        def accept():
            while True:
                try:
                    self.listeners[name].append(s.accept()[0])
                except (OSError, KeyError):
                    return
        threading.Thread(target=accept, daemon=True).start()

    def stop(self, name):
        for s in self.listeners.pop(name, []):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def end(self, name, phase="Succeeded", code=0):
        self.stop(name)
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        self.call("PATCH", f"pods/{name}/status", {"status": {
            "phase": phase, "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "runner", "image": "x", "imageID": "", "ready": False,
                                   "restartCount": 0, "state": {"terminated": ended}}]}}, MERGE)

    def close(self):
        self.kubectl("delete", "podtemplates", "--all", "--wait=false")
        self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0",
                     stderr=subprocess.DEVNULL)
        self.stopping = True
        for name in list(self.listeners):
            self.stop(name)
