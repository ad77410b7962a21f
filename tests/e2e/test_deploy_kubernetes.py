# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes and deploy/images without a cluster: what kustomize makes of them refers to what is
there, asks for no right that is not needed, and has what Kiln itself says. (What an API server says to
it is tests/cluster's.)"""

import glob
import json
import os
import re
import shutil
import secrets as random
import subprocess
import sys

import pytest

from harness import ROOT, program, wait_until

sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from fake_kube import Kube  # noqa: E402

yaml = pytest.importorskip("yaml")

KUBERNETES = os.path.join(ROOT, "deploy", "kubernetes")
IMAGES = os.path.join(ROOT, "deploy", "images")
OVERLAYS = ["base", "overlays/minikube", "overlays/production", "seccomp"]
SYSTEM, DATA = "code-exec-system", "code-exec-data"
# Made by others: kube-scheduler's classes, and each namespace's own.
GIVEN = {("PriorityClass", "system-node-critical")}
RUNNER_USER = 10001


def kubectl():
    """A kubectl that knows components: of this machine, or the one that tests/cluster builds."""
    cache = os.environ.get("KILN_CLUSTER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kiln-cluster")
    for path in (shutil.which("kubectl"), os.path.join(cache, "bin", "kubectl")):
        if path and os.access(path, os.X_OK):
            return path
    return pytest.skip("kubectl is not installed, and tests/cluster/build.sh has not built one")


def kustomize(folder):
    done = subprocess.run([kubectl(), "kustomize", folder], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def built():
    return {overlay: kustomize(os.path.join(KUBERNETES, overlay)) for overlay in OVERLAYS}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """{overlay: what secrets.sh makes for it}."""
    made = {}
    for overlay, option in (("overlays/minikube", ["--servers"]), ("overlays/production", [])):
        folder = tmp_path_factory.mktemp("secrets")
        if not option:
            (folder / "servers.env").write_text(
                "KILN_STORE=postgresql://a:b@db/kiln\nKILN_QUEUE=amqp://a:b@mq/\n"
                "KILN_CACHE=redis://cache/0\n", encoding="utf-8")
        make_secrets([*option, str(folder)])
        made[overlay] = kustomize(str(folder))
    return made


def make_secrets(arguments, **more):
    return subprocess.run([os.path.join(KUBERNETES, "secrets.sh"), *arguments], text=True,
                          check=more.pop("check", True), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60,
                          env={**os.environ, "KILN": program("kiln")}, **more)


def of_kind(objects, kind):
    return [o for o in objects if o["kind"] == kind]


def pod_spec(obj):
    """The pod spec in an object that has one."""
    if obj["kind"] == "PodTemplate":
        return obj["template"]["spec"]
    return obj.get("spec", {}).get("template", {}).get("spec") if isinstance(
        obj.get("spec"), dict) else None


def pod_specs(objects):
    return [(f"{o['kind']}/{o['metadata']['name']}", o, pod_spec(o)) for o in objects if pod_spec(o)]


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def languages():
    found = {}
    for path in glob.glob(os.path.join(ROOT, "languages", "*.yaml")):
        with open(path, encoding="utf-8") as f:
            one = yaml.safe_load(f)
        found[one["name"]] = one
    return found


def quantity(text):
    """Bytes of a Kubernetes or Kiln size."""
    number, unit = re.fullmatch(r"(\d+)([KMG]i)B?", text).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def image_names():
    """{image: Dockerfile}."""
    return {f"localhost/kiln-{os.path.basename(p).removesuffix('.Dockerfile')}": p
            for p in glob.glob(os.path.join(IMAGES, "*.Dockerfile"))}


# What is built


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_told_apart_and_have_a_place(built, overlay):
    seen = set()
    for o in built[overlay]:
        key = (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        assert key not in seen
        seen.add(key)
        if o["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            wanted = {"seccomp": {"kiln-seccomp"}}.get(overlay, {SYSTEM, DATA})
            assert o["metadata"]["namespace"] in wanted, key
    assert {n for _, n, _ in seen if n} == {n for k, _, n in seen if k == "Namespace"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_refer_to_what_is_there(built, secrets, overlay):
    objects = built[overlay] + secrets.get(overlay, secrets["overlays/production"])
    there = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects}

    def find(kind, obj, name):
        found = there.get((kind, obj["metadata"]["namespace"], name))
        assert found, (obj["metadata"]["name"], kind, name)
        return found

    for name, obj, spec in pod_specs(built[overlay]):
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        claims = {c["metadata"]["name"] for c in obj.get("spec", {}).get("volumeClaimTemplates", [])}
        mounted = {m["name"] for c in containers(spec) for m in c.get("volumeMounts", [])}
        assert mounted == set(volumes) | claims, name
        for volume in volumes.values():
            if "secret" in volume:
                secret = find("Secret", obj, volume["secret"]["secretName"])
                for item in volume["secret"].get("items", []):
                    assert item["key"] in secret["data"], (name, item)
            if "configMap" in volume:
                find("ConfigMap", obj, volume["configMap"]["name"])
        for one in containers(spec):
            for source in one.get("envFrom", []):
                for kind, key in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if kind in source:
                        find(key, obj, source[kind]["name"])
            for variable in one.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    ref = variable["valueFrom"]["secretKeyRef"]
                    assert ref["key"] in find("Secret", obj, ref["name"])["data"], name
            ports = {p["name"] for p in one.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                how = one.get(probe, {})
                action = how.get("httpGet") or how.get("tcpSocket")
                assert not action or action["port"] in ports, (name, probe)
        if "serviceAccountName" in spec:
            find("ServiceAccount", obj, spec["serviceAccountName"])
        labels = (obj.get("template") or obj["spec"]["template"])["metadata"]["labels"]
        selector = obj.get("spec", {}).get("selector", {}).get("matchLabels", {})
        assert selector.items() <= labels.items(), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_pods_of_that_name(built, overlay):
    """Of Services, NetworkPolicies and budgets: a mistyped one selects nothing, and says nothing."""
    names = {(o.get("template") or o["spec"]["template"])["metadata"]["labels"]
             ["app.kubernetes.io/name"] for _, o, _ in pod_specs(built[overlay])}
    selecting = [o["spec"] for o in built[overlay]
                 if o["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget")]
    assert bool(selecting) == (overlay != "seccomp")
    for spec in selecting:
        assert set(re.findall(r'"app.kubernetes.io/name": "([\w-]+)"', json.dumps(spec))) <= names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_those_that_are_built(built, overlay):
    """None of ours without a tag, or by a name that a registry would be asked for."""
    with open(os.path.join(ROOT, "meson.build"), encoding="utf-8") as f:
        version = re.search(r"version: '([\d.]+)'", f.read())[1]
    for name, _, spec in pod_specs(built[overlay]):
        for one in containers(spec):
            image, _, tag = one["image"].rpartition(":")
            if one["image"].startswith("docker.io/library/"):
                assert overlay == "overlays/minikube" and tag, name
                continue
            assert image in image_names(), (name, one["image"])
            assert tag == version, (name, one["image"])


# What may be done


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_have_no_right_that_they_do_not_need(built, overlay):
    for name, obj, spec in pod_specs(built[overlay]):
        security = spec["securityContext"]
        ours = obj["metadata"]["namespace"] == SYSTEM
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["enableServiceLinks"] is False, name
        if obj["metadata"]["namespace"] != "kiln-seccomp":
            assert security["runAsNonRoot"] is True, name
            assert not any("hostPath" in v for v in spec.get("volumes", [])), name
        assert not ours or security["runAsUser"] == RUNNER_USER, name
        assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost"), name
        # The schedulers alone speak to the API server.
        assert spec.get("automountServiceAccountToken", True) is (name == "Deployment/kiln-scheduler")
        for one in containers(spec):
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name
            assert context.get("readOnlyRootFilesystem") or not ours, name
            assert one["resources"]["limits"]["memory"], name
            assert {"cpu", "memory"} <= set(one["resources"]["requests"]), name


def test_only_schedulers_have_rights_and_those_that_they_use(built):
    objects = built["overlays/production"]
    for kind in ("Role", "ClusterRole"):
        bound = of_kind(objects, kind + "Binding")
        assert [[s["name"] for s in b["subjects"]] for b in bound] == [["kiln-scheduler"]]
    for rule in of_kind(objects, "Role")[0]["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert set(rule["resources"]) <= {"pods", "podtemplates", "leases"}
    # Of the whole cluster: which nodes are there, and nothing else.
    assert [r["rules"] for r in of_kind(objects, "ClusterRole")] == [
        [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]]


def test_pods_of_pools_have_no_way_out(built):
    for overlay in ("base", "overlays/minikube", "overlays/production"):
        policies = {o["metadata"]["name"]: o["spec"] for o in of_kind(built[overlay], "NetworkPolicy")
                    if o["metadata"]["namespace"] == SYSTEM}
        pods = policies["kiln-pods"]
        assert pods["policyTypes"] == ["Ingress", "Egress"] and "egress" not in pods
        assert pods["podSelector"] == {"matchExpressions": [{"key": "kiln/pool", "operator": "Exists"}]}
        assert policies["kiln-deny"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


# What is started


def test_commands_and_settings_exist(built, cli):
    keys = {k.upper().replace(".", "_")
            for k in re.findall(r"(?m)^([a-z_.]+)", cli("config", "--keys").stdout)}
    options = set(re.findall(r"--[a-z-]+", subprocess.run(
        [program("kiln-runner"), "--help"], check=True, text=True, stdout=subprocess.PIPE,
        timeout=30).stdout))
    started = set()
    for overlay in OVERLAYS:
        for o in of_kind(built[overlay], "ConfigMap"):
            for key in o["data"]:
                assert key == "runner.json" or key.removeprefix("KILN_") in keys, key
        for name, _, spec in pod_specs(built[overlay]):
            for one in containers(spec):
                argv = one.get("command", []) + one.get("args", [])
                flags = [a.partition("=")[0] for a in argv if a.startswith("--")]
                if argv[:1] == ["kiln"]:
                    assert cli("help", argv[1]).returncode == 0, name
                    known = {f"--{k.lower().replace('_', '-')}" for k in keys}
                    assert set(flags) <= known, name
                    started.add(argv[1])
                if argv[:1] == ["/kiln/kiln-runner"]:
                    assert set(flags) <= options, name
                    started.add("runner")
    assert started == {"api", "scheduler", "migrate", "runner"}


def test_every_language_has_a_pool_of_an_image_that_has_it(built):
    """The pool named like the language, its file and its key, in an image with what it needs."""
    pools = {o["metadata"]["name"]: o for o in of_kind(built["base"], "PodTemplate")}
    assert set(pools) == set(languages())
    ceiling = quantity(next(o for o in of_kind(built["base"], "ConfigMap"))
                       ["data"]["KILN_CEILINGS_MEMORY_BYTES"])
    for name, pool in pools.items():
        spec = pool_spec = pool["template"]["spec"]
        init, runner = spec["initContainers"][0], spec["containers"][0]
        assert init["args"] == [name]
        assert [v["secret"]["items"] for v in pool_spec["volumes"] if "secret" in v] == [
            [{"key": name, "path": "key"}]]
        notes = pool["metadata"]["annotations"]
        assert notes["kiln/key"] == "pod" and [v["name"] for v in init["env"]] == ["POD_NAME"]
        assert not any(m["mountPath"] == "/run/kiln-secret" for m in runner["volumeMounts"])
        slots = [a for a in runner["command"] + runner.get("args", []) if a.startswith("--slots=")]
        assert slots[-1] == "--slots=" + notes["kiln/slots"], name
        assert int(notes["kiln/min"]) <= int(notes["kiln/max"])
        assert quantity(runner["resources"]["limits"]["memory"]) > ceiling * int(notes["kiln/slots"])
        dockerfile = image_names()[runner["image"].rpartition(":")[0]]
        with open(dockerfile, encoding="utf-8") as f:
            installed = f.read().split()
        for package in languages()[name]["install"]["debian"].split():
            assert package in installed, (name, package)


def test_everything_is_in_the_image_of_everything():
    with open(image_names()["localhost/kiln-all-in-one"], encoding="utf-8") as f:
        installed = f.read().split()
    for name, one in languages().items():
        assert set(one["install"]["debian"].split()) <= set(installed), name


def test_the_control_plane_has_no_compiler_and_the_libraries_that_kiln_needs():
    with open(image_names()["localhost/kiln-kiln"], encoding="utf-8") as f:
        text = f.read()
    assert not {"gcc", "g++", "python3", "golang-go", "nodejs", "default-jdk-headless"} & set(text.split())
    assert "kiln-runner" not in text and "kiln-sandbox" not in text
    loaded = subprocess.run(["objdump", "-p", program("kiln")], check=True, text=True,
                            stdout=subprocess.PIPE, timeout=30).stdout
    resolved = dict(re.findall(r"(\S+) => (/\S+)", subprocess.run(
        ["ldd", program("kiln")], check=True, text=True, stdout=subprocess.PIPE, timeout=30).stdout))
    files = [resolved[library] for library in re.findall(r"NEEDED\s+(\S+)", loaded)
             if not re.match(r"lib(c|m|asan|ubsan|gcc_s)\.so|ld-linux", library)]
    owners = subprocess.run(["dpkg", "-S", *["*" + f for f in map(os.path.basename, files)]], check=True,
                            text=True, stdout=subprocess.PIPE, timeout=60).stdout
    for path in map(os.path.basename, files):
        packages = {line.partition(":")[0] for line in owners.splitlines() if line.endswith("/" + path)}
        assert packages & set(text.split()), path


@pytest.mark.parametrize("overlay", ["base", "pod-isolation"])
def test_kiln_makes_pods_of_the_templates_as_they_are(built, tmp_path, make_server, overlay):
    """Its own reader takes all of them, and a pool's first pod is what the template says."""
    objects = built["base"] if overlay == "base" else overlay_with(
        tmp_path, components=[f"components/{overlay}"])
    templates = {o["metadata"]["name"]: o for o in of_kind(objects, "PodTemplate")}
    secret = tmp_path / "secret"
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
        f.write(random.token_hex(32))
    kube = Kube(namespace=SYSTEM)
    try:
        for one in templates.values():
            kube.put("podtemplates", one)
        server = make_server(args=[f"--pods={kube.url}", f"--cluster-secret-file={secret}"],
                             start=False)
        server.start(ready=False)  # these pods have no runner
        first = {n for n, o in templates.items() if int(o["metadata"]["annotations"]["kiln/min"]) > 0}
        assert first

        def made():
            return {p["metadata"]["labels"]["kiln/pool"]: p for p in kube.pods()}
        wait_until(lambda: first <= set(made()), what="the first pods")
        for name, pod in made().items():
            for key, value in templates[name]["template"]["spec"].items():
                assert pod["spec"][key] == value, (name, key)
        assert "cannot use a pod template" not in server.log_text()
    finally:
        kube.close()


# Pools of one's own


def overlay_with(folder, **more):
    """What kustomize makes of base and more in a folder of its own."""
    def relative(path):
        return os.path.relpath(os.path.join(KUBERNETES, path), os.path.realpath(folder))
    text = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [relative("base"), *more.get("files", [])],
            "components": [relative(c) for c in more["components"]]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return kustomize(str(folder))


def test_pool_of_the_manual_is_one_with_the_component(tmp_path):
    with open(os.path.join(ROOT, "docs", "OPERATIONS.md"), encoding="utf-8") as f:
        section = f.read().partition("### A pool for any image")[2]
    (tmp_path / "mine.yaml").write_text(section.partition("```yaml\n")[2].partition("```")[0],
                                        encoding="utf-8")
    pools = {o["metadata"]["name"]: o for o in of_kind(
        overlay_with(tmp_path, files=["mine.yaml"], components=["components/runner"]), "PodTemplate")}
    mine, shipped = (pools[n]["template"]["spec"] for n in ("python313", "python"))
    assert mine["containers"][0].pop("image") == "docker.io/library/python:3.13-slim"
    # In all else it is as the shipped ones are.
    shipped["containers"][0].pop("image")
    shipped["containers"][0]["resources"]["limits"].pop("ephemeral-storage")
    for spec, name in ((mine, "python313"), (shipped, "python")):
        assert spec["initContainers"][0].pop("args") == [name]
        volume = next(v for v in spec["volumes"] if v["name"] == "key")
        assert volume["secret"].pop("items") == [{"key": name, "path": "key"}]
    assert mine == shipped


def test_example_of_a_language_is_known_to_all_who_must_know_it(tmp_path, cli):
    objects = overlay_with(tmp_path, components=["examples/python313"])
    config = next(o for o in of_kind(objects, "ConfigMap") if "python313" in o["metadata"]["name"])
    for name, _, spec in pod_specs(objects):
        volumes = [v["configMap"] for v in spec.get("volumes", []) if "configMap" in v]
        if name in ("Deployment/kiln-api", "Deployment/kiln-scheduler", "PodTemplate/python313"):
            assert [v["name"] for v in volumes] == [config["metadata"]["name"]], name
            assert spec["containers"][0]["volumeMounts"], name
    folder = tmp_path / "languages"
    folder.mkdir()
    (folder / "python313.yaml").write_text(config["data"]["language.yaml"], encoding="utf-8")
    # The file is read, and its toolchain looked for (a mistake in it is told instead).
    assert cli("languages", "check", "python313", "--languages", str(folder)).stdout.split() == [
        "python313", "not", "installed"]


@pytest.mark.parametrize("component", ["pod-isolation", "runtime-class"])
def test_pods_without_namespaces_are_used_once(tmp_path, component):
    """Under the runtime's own profile, with the folders that such a task needs."""
    pools = of_kind(overlay_with(tmp_path, components=[f"components/{component}"]), "PodTemplate")
    assert {p["metadata"]["name"] for p in pools} == set(languages())
    options = subprocess.run([program("kiln-runner"), "--help"], check=True, text=True,
                             stdout=subprocess.PIPE, timeout=30).stdout
    for pool in pools:
        spec, notes = pool["template"]["spec"], pool["metadata"]["annotations"]
        runner = spec["containers"][0]
        assert notes["kiln/recycle-tasks"] == notes["kiln/slots"] == "1"
        assert "hostUsers" not in spec and "procMount" not in runner["securityContext"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert runner["command"][-1] == "--isolation=pod" and "--isolation" in options
        volumes = {v["name"]: v for v in spec["volumes"]}
        for mount in runner["volumeMounts"]:
            if mount["mountPath"] in ("/box", "/tmp"):
                assert volumes[mount["name"]]["emptyDir"]["medium"] == "Memory"
        assert {"/box", "/tmp"} <= {m["mountPath"] for m in runner["volumeMounts"]}
        assert spec.get("runtimeClassName") == ("kata" if component == "runtime-class" else None)


# Secrets


def test_secrets_are_kept_and_keys_are_added(tmp_path):
    make_secrets(["--servers", str(tmp_path), "python"])
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert all(p.stat().st_mode & 0o77 == 0 for p in tmp_path.rglob("*"))
    make_secrets([str(tmp_path), "python", "mine"])
    after = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after.pop("mine").startswith(b"kiln-runner-key mine ")
    assert before.pop("kustomization.yaml") != after.pop("kustomization.yaml")
    assert after == before
    assert before["python"].startswith(b"kiln-runner-key python ")


def test_secrets_want_to_know_the_servers(tmp_path):
    refused = make_secrets([str(tmp_path), "python"], check=False)
    assert refused.returncode == 1
    assert "servers.env" in refused.stderr
    assert make_secrets([], check=False).returncode == 2
