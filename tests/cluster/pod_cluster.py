# SPDX-License-Identifier: Apache-2.0
"""Kiln over the Kubernetes of node.sh: the API and the schedulers are processes beside the node, the
runners are its pods, from the images and the manifests of deploy/. For who runs in the node's network
(`node.sh net`)."""

import copy
import functools
import glob
import json
import os
import pwd
import shutil
import subprocess
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("e2e", "stack", "chaos"):
    sys.path.insert(0, os.path.join(ROOT, "tests", folder))

import cluster as processes  # noqa: E402
from harness import wait_until  # noqa: E402

# Every language of a load (tests/chaos/load.py) has a pool. More would not fit on a node of two cores.
LOAD_POOLS = ("bash", "python", "c")
NAMESPACE, NODE = "code-exec-system", "node-1"
USER = "nobody"  # of the processes beside the node
DEPLOY = os.path.join(ROOT, "deploy", "kubernetes")
NAMESPACE_FOLDER = os.path.join(DEPLOY, "namespace")
STATE = os.environ.get("KILN_CLUSTER_DIR") or os.path.join(ROOT, "build", "cluster")


def node(*args):
    """node.sh's verbs."""
    return subprocess.run([os.path.join(ROOT, "tests", "cluster", "node.sh"), *args], check=True,
                          stdin=subprocess.DEVNULL, text=True, timeout=180)


def kubectl(*args, check=True, namespace=NAMESPACE, text=None):
    argv = ["kubectl", *([f"--namespace={namespace}"] if namespace else []), *args]
    done = subprocess.run(argv, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=180, input=text or "")
    assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
    return done


def apply(thing):
    kubectl("apply", "-f", "-", text=json.dumps(thing),
            namespace=thing["metadata"].get("namespace", NAMESPACE))


def get(kind, *args):
    return json.loads(kubectl("get", kind, "-o", "json", *args).stdout)["items"]


def api_answers():
    return kubectl("get", "--raw=/readyz", "--request-timeout=2s", check=False).returncode == 0


def pods(pool=None):
    return get("pods", "-l", "kiln/pool" + (f"={pool}" if pool else ""))


def is_ready(pod):
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def ready(pool=None):
    return sorted(p["metadata"]["name"] for p in pods(pool) if is_ready(p))


def kill(name):
    """As the loss of its machine would: no grace, no word."""
    kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false", check=False)


def kustomizations():
    """Every folder that can be applied by itself; a component is part of others."""
    found = []
    for path in glob.glob(os.path.join(DEPLOY, "**", "kustomization.yaml"), recursive=True):
        with open(path, encoding="utf-8") as f:
            if yaml.safe_load(f)["kind"] == "Kustomization":
                found.append(os.path.dirname(path))
    return sorted(found)


@functools.cache
def shipped_pools():
    """The pod templates that are shipped, by name."""
    text = subprocess.run(["kubectl", "kustomize", os.path.join(DEPLOY, "base")], check=True, text=True,
                          stdout=subprocess.PIPE, timeout=60).stdout
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(text)
            if one["kind"] == "PodTemplate"}


class Audit:
    """What the schedulers asked the API server for, by its own log, since this was made."""

    def __init__(self):
        self.path = os.path.join(STATE, "audit.log")
        self.at = os.path.getsize(self.path)

    def requests(self):
        """[(verb, resource, name)]"""
        with open(self.path, encoding="utf-8") as f:
            f.seek(self.at)
            lines = [json.loads(line) for line in f if line.endswith("\n")]
        refs = [(one["verb"], one.get("objectRef", {})) for one in lines]
        return [(verb, ref.get("resource"), ref.get("name")) for verb, ref in refs]


class PodCluster(processes.Cluster):
    """A scheduler has no more rights than the manifests give. There are no pools until template()."""

    def __init__(self, directory, config=(), **more):
        # Started as root, a scheduler is somebody else by the time at which it reads these two.
        self.token, self.ca = (os.path.join(str(directory), name) for name in ("token", "ca.crt"))
        token = kubectl("create", "token", "kiln-scheduler", "--duration=24h").stdout
        with open(os.open(self.token, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write(token)
        user = pwd.getpwnam(USER)
        os.chown(self.token, user.pw_uid, user.pw_gid)
        shutil.copyfile(os.path.join(STATE, "pki", "ca.crt"), self.ca)
        super().__init__(directory, runners=0, config=[f"--user={USER}", *config], **more)
        self.give_keys()

    def scheduler(self, name, pods=None, secret_file=None):
        url = f"kubernetes:{NAMESPACE}?server=https://127.0.0.1:6443&ca={self.ca}&token={self.token}"
        return super().scheduler(name, pods or url, secret_file)

    def wait_ready(self):
        """A scheduler is ready once it has a runner, and there is no pool yet."""
        def alive(scheduler):
            assert scheduler.process.poll() is None, scheduler.log_text()
            try:
                return scheduler.get("/healthz").status == 200
            except OSError:
                return False
        for scheduler in self.schedulers:
            wait_until(functools.partial(alive, scheduler), what=f"{scheduler.name} alive")
        for api in self.apis:
            api.wait_ready()
        return self

    def give_keys(self):
        """The Secret that the init containers take the runners' keys from."""
        words = []
        for pool in shipped_pools():
            path = os.path.join(self.directory, f"{pool}.key")
            self.kiln("runner-key", pool, "--secret-file", self.secret_file, "--out", path)
            words.append(f"--from-file={pool}={path}")
        secret = kubectl("create", "secret", "generic", "kiln-runner-keys", *words, "--dry-run=client",
                         "-o", "json").stdout
        kubectl("apply", "-f", "-", text=secret)

    def template(self, pool, change=None, **notes):
        """Applies the template of a pool that is shipped, with these annotations; change may alter it."""
        template = copy.deepcopy(shipped_pools()[pool])
        template["metadata"]["annotations"] |= {
            "kiln/" + key.replace("_", "-"): str(value) for key, value in notes.items()}
        if change:
            change(template)
        apply(template)

    def until_ready(self, pool, n, seconds=90):
        return wait_until(lambda: len(names := ready(pool)) >= n and names, seconds, every=0.2,
                          what=f"{n} pods of {pool}")

    def no_pods(self):
        """Templates and pods are gone: what comes next begins with none."""
        kubectl("delete", "podtemplates", "--all")
        kubectl("delete", "pods", "-l", "kiln/pool", "--grace-period=0", "--force", check=False)
        wait_until(lambda: not pods(), 60, every=0.2, what="no pods")

    def leader(self):
        lease = json.loads(kubectl("get", "lease", "kiln-pods", "-o", "json").stdout)
        return lease["spec"].get("holderIdentity")

    def leading(self):
        """The scheduler that leads."""
        def found():
            return [s for s in self.schedulers if "\nkiln_leader 1" in s.get("/metrics").body.decode()]
        return wait_until(found, 60, every=0.2, what="a leader")[0]

    def busy(self):
        """Names of the pods that run a task now, by the leader's word. (A task that runs says where only
        once it has a result.)"""
        told = json.loads(self.leading().get("/pods").body)
        return [pod["name"] for pod in told["pods"] if pod["used"]]

    def close(self):
        try:
            wait_until(api_answers, 60, every=0.2, what="the API server")
            self.no_pods()
        finally:
            super().close()
