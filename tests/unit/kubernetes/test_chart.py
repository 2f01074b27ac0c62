"""The chart, rendered by Helm for each documented set of values: by both majors, and in detail by the newer one."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml

import k8s.control_loop
from k8s.objects import ray_job
from k8s.serve import HTTP
from ml_core.cells.serve_api import serve_config
from ml_core.domain.api_key import ApiKey
from ml_core.domain.placement import Placement, Placements
from ml_core.inference.edge.grpc_headers import SERVICE
from ml_core.platform.ray_cluster import NODE_ENVIRONMENT
from ml_core.settings import ArtifactSettings, DatabaseSettings, Settings, all_variables
from support import kuberay
from support.attempts import attempt
from support.helm import IS_PACKAGED, PACKAGES, helm

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "ml-platform"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
OF_OPERATORS = {"RayService", "Cluster", "HTTPRoute", "PodMonitor"}

pytestmark = pytest.mark.skipif(not IS_PACKAGED, reason="the packages with Helm are for Linux on x86-64")


@cache
def rendered(*arguments: str, major: int = 4) -> dict[tuple[str, str], dict[str, Any]]:
    """What Helm renders, by kind and name."""
    made = helm("template", "ml", str(CHART), *arguments, major=major)
    assert made.returncode == 0, made.stderr
    objects = [each for each in yaml.safe_load_all(made.stdout) if each]
    named = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(named) == len(objects)
    return named


def of(example: str) -> dict[tuple[str, str], dict[str, Any]]:
    return rendered("--values", str(CHART / "examples" / f"{example}.yaml"))


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod template, by component."""
    found = {}
    for (kind, _), each in objects.items():
        spec = each.get("spec", {})
        if kind == "RayService":
            cluster = spec["rayClusterConfig"]
            found["head"] = cluster["headGroupSpec"]["template"]
            found.update({group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]})
        elif kind == "Pod":
            found[kind] = each
        elif "rayjob.yaml" in each.get("data", {}):
            found["job"] = made_job(each)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
        elif "template" in spec:
            found[each["metadata"]["name"]] = spec["template"]
    return found


def made_job(template: dict[str, Any]) -> dict[str, Any]:
    """The RayJob of a job by the template of the chart."""
    return ray_job(attempt(cpus=2.5), {}, yaml.safe_load(template["data"]["rayjob.yaml"]))


def environment(pod: dict[str, Any]) -> dict[str, str | None]:
    variables = pod["spec"]["containers"][0].get("env", [])
    named = {each["name"]: each.get("value") for each in variables}
    assert len(named) == len(variables)
    return named


@pytest.mark.parametrize("major", PACKAGES)
@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "default")
def test_every_documented_set_of_values_makes_valid_objects(example: Path | None, major: int) -> None:
    """Helm finds no fault, and the schemas of Kubernetes and KubeRay accept each object and each pod."""
    assert helm("version", "--template={{.Version}}", major=major).stdout.startswith(f"v{major}.")
    arguments = () if example is None else ("--values", str(example))
    linted = helm("lint", "--strict", str(CHART), *arguments, major=major)
    assert linted.returncode == 0, linted.stdout
    objects = rendered(*arguments, major=major)
    for (kind, _), each in objects.items():
        if kind == "RayService":
            kuberay.validate(each)
        elif "rayjob.yaml" in each.get("data", {}):
            kuberay.validate(made_job(each))
        if kind not in OF_OPERATORS:
            kubernetes_validate.validate(each, "1.34", strict=True)
    for name, pod in pods(objects).items():
        metadata = {"name": name, **{key: value for key, value in pod["metadata"].items() if key != "name"}}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}, "1.34", strict=True
        )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_pod_is_restricted(example: Path) -> None:
    """As the Pod Security Standard "restricted" asks, with a read-only root; one pod has a token of the API server."""
    found = pods(of(example.stem))
    assert {"head", "workers", "Pod"} <= found.keys()
    for pod in found.values():
        spec = pod["spec"]
        # Only the control loop talks to the API server; it runs no code of tenants.
        assert spec["automountServiceAccountToken"] == (spec["serviceAccountName"] == "ml-ml-platform-control-loop")
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert container["resources"]["limits"]["memory"]


def test_ray_has_the_environment_of_the_platform() -> None:
    """That of the embedded platform, what only a cluster needs, and settings that exist."""
    for name in ("head", "workers"):
        given = environment(pods(of("kind"))[name])
        assert NODE_ENVIRONMENT.items() <= given.items()
        assert given["MLCORE_REQUIRE_ASSIGNMENT"] == "on"
        unknown = {each.removesuffix("_FILE") for each in given if each.startswith("MLCORE_")} - all_variables().keys()
        assert not unknown
    head = environment(pods(of("kind"))["head"])
    assert head["RAY_gcs_storage"] == "rocksdb"


def test_no_process_but_the_setup_has_the_owner_s_login() -> None:
    """Which reads the key of all tenants, and migrates. A job's pod has no key, since it has the seal of its job."""
    for name, pod in pods(of("production")).items():
        if name == "Pod":  # the test of the chart, which has no login at all
            assert {each["name"] for each in pod["spec"]["volumes"]} == {"tmp", "platform-key"}
            continue
        secret = next(each["secret"] for each in pod["spec"]["volumes"] if each["name"] == "database")
        keys = {item["key"] for item in secret["items"]}
        assert secret["secretName"] == "ml-database"
        assert ("owner-url" in keys) == (name == "ml-ml-platform-setup-1")
        assert ("tenant-key" in keys) == (name != "job")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_serve_is_declared_as_on_one_machine(example: Path) -> None:
    """The applications are those of the embedded platform; replicas are spread."""
    spec = of(example.stem)["RayService", "ml-ml-platform"]["spec"]
    declared = yaml.safe_load(spec["serveConfigV2"])
    (cell,) = declared["applications"][0]["deployments"]
    shared = Placement(min_replicas=cell["num_replicas"], max_replicas=cell["num_replicas"])
    (loop,) = of(example.stem)["Deployment", "ml-ml-platform-control-loop"]["spec"]["template"]["spec"]["containers"]
    given = k8s.control_loop.parser().parse_args(loop["command"][3:])
    planner = k8s.control_loop.planner(given.workers)
    wanted = planner(Placements(shared), {}, now=0).applications
    assert declared == serve_config(wanted, HTTP)
    assert environment({"spec": {"containers": [loop]}})["MLCORE_REPLICAS"] == str(cell["num_replicas"])
    assert spec["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_the_database_s_secret_is_what_the_settings_read(tmp_path: Path) -> None:
    """The URLs, with their passwords, and the tenant key; each is another one."""
    secret = of("kind")["Secret", "ml-ml-platform-database"]["stringData"]
    for key, text in secret.items():
        (tmp_path / key).write_text(text)
    files = {
        name: str(tmp_path / Path(path).name)
        for name, path in environment(pods(of("kind"))["ml-ml-platform-setup-1"]).items()
        if path and path.startswith("/etc/mlcore/database/")
    }
    database = Settings.from_environment(files).database
    assert database == DatabaseSettings(
        url=secret["url"],
        owner_url=secret["owner-url"],
        ingest_url=secret["ingest-url"],
        tenant_key=secret["tenant-key"],
    )
    assert len(bytes.fromhex(secret["tenant-key"])) == 32
    assert len({secret[f"{name}-password"] for name in ("app", "ingest", "owner", "superuser")}) == 4


@pytest.mark.parametrize("arguments", [(), ("--set", "bootstrapKey.secret=mine"), ("--is-upgrade",)], ids=" ".join)
def test_the_first_key_of_the_platform_is_in_a_secret(arguments: tuple[str, ...]) -> None:
    """The setup registers it and the test of the chart uses it; a deleted one is not made anew by an upgrade."""
    objects = rendered(*arguments)
    generated = {
        name: each for (kind, name), each in objects.items() if kind == "Secret" and "key" in each.get("data", {})
    }
    assert list(generated) == ([] if arguments else ["ml-ml-platform-platform-key"])
    for made in generated.values():
        assert ApiKey.adopt(base64.b64decode(made["data"]["key"]).decode())
    setup_name = f"ml-ml-platform-setup-{'upgrade' if '--is-upgrade' in arguments else 1}"
    setup, test = (pods(objects)[name]["spec"] for name in (setup_name, "Pod"))
    secret = "mine" if "--set" in arguments else "ml-ml-platform-platform-key"
    mounted = [each["secret"]["secretName"] for each in setup["volumes"] if each["name"] == "platform-key"]
    assert mounted == ([] if "--is-upgrade" in arguments else [secret])
    assert ("mlcore db platform-key " in setup["containers"][0]["args"][0]) == bool(mounted)
    assert [each["secret"]["secretName"] for each in test["volumes"] if "secret" in each] == [secret]


def test_jobs_have_pods_of_their_own_by_value() -> None:
    """With a token of their own, and nothing of the cluster that serves; Serve has no control loop then."""
    objects = of("production")
    job = made_job(objects["ConfigMap", "ml-ml-platform-job"])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "2.5", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}
    assert not {each["name"] for each in container["env"]} & {"MLCORE_RAY_TOKEN", "MLCORE_RAY_URL"}
    rules = objects["Role", "ml-ml-platform-control-loop"]["rules"]
    assert [rule["resources"] for rule in rules] == [["rayservices"], ["rayjobs"]]
    (rule,) = of("kind")["Role", "ml-ml-platform-control-loop"]["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == (["ml-ml-platform"], ["patch"])


def test_artifacts_are_in_a_bucket_or_on_the_volume() -> None:
    """A bucket needs no claim; its keys come from a Secret or from the role of the service account."""
    assert ("PersistentVolumeClaim", "ml-ml-platform-home") in of("kind")
    for example in ("production", "cloudnativepg"):
        objects = of(example)
        assert ("PersistentVolumeClaim", "ml-ml-platform-home") not in objects
        given = environment(pods(objects)["workers"])
        assert ("AWS_ACCESS_KEY_ID" in given) == (example == "cloudnativepg")
        assert ArtifactSettings(url=given["MLCORE_ARTIFACTS_URL"], region=given.get("MLCORE_ARTIFACTS_REGION")).bucket


def test_only_workers_that_serve_have_the_secret_of_the_openid_client() -> None:
    """The control API is there. A job runs code of a tenant; the pod of one could not even read the file."""
    given = ("--values", str(CHART / "examples" / "production.yaml"), "--set", "jobs.maxWorkers=1")
    found = pods(rendered(*given))
    assert {"job", "jobs", "head", "workers"} <= found.keys()
    for name, pod in found.items():
        (container, *_), volumes = pod["spec"]["containers"], pod["spec"]["volumes"]
        secrets = [each["secret"]["secretName"] for each in volumes if each["name"] == "openid"]
        path = environment(pod).get("MLCORE_OIDC_CLIENT_SECRET_FILE")
        assert (secrets, path is not None) == ((["ml-openid"], True) if name == "workers" else ([], False)), name
        if path is not None:
            (mounted,) = (each for each in container["volumeMounts"] if each["name"] == "openid")
            (item,) = next(each for each in volumes if each["name"] == "openid")["secret"]["items"]
            assert f"{mounted['mountPath']}/{item['path']}" == path
            named = {each: text for each, text in environment(pod).items() if each.startswith("MLCORE_OIDC_") and text}
            named["MLCORE_OIDC_CLIENT_SECRET"] = "s"
            assert Settings.from_environment(named).oidc.client_id
    assert "openid" not in {each["name"] for each in pods(rendered())["workers"]["spec"]["volumes"]}


def test_trusted_modules_reach_each_pod_that_opens_models() -> None:
    """Replicas, the control API and jobs, in whatever pods they run; the control loop hands them to RayJobs."""
    given = ("--values", str(CHART / "examples" / "production.yaml"), "--set", "settings.MLCORE_TRUSTED_MODULES=acme")
    found = {name: environment(pod) for name, pod in pods(rendered(*given)).items()}
    assert {name for name, given in found.items() if given.get("MLCORE_TRUSTED_MODULES") == "acme"} >= {
        "head",
        "workers",
        "job",
        "ml-ml-platform-control-loop",
    }


def test_the_operator_changes_nothing_of_the_chart() -> None:
    """What its types always write is in the chart: otherwise the field would be the operator's for Helm 4."""
    for group in of("kind")["RayService", "ml-ml-platform"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["scaleStrategy"] == {}


def test_every_pod_that_reads_artifacts_has_the_role_of_the_cloud() -> None:
    """The control loop, too, whose account is its own: it measures drift from the profile of a training."""
    objects = of("production")
    for component, template in pods(objects).items():
        account = template["spec"]["serviceAccountName"]
        assert "eks.amazonaws.com/role-arn" in objects["ServiceAccount", account]["metadata"]["annotations"], component


def test_an_upgrade_migrates_before_anything_changes() -> None:
    """The job is a hook then; at installation it runs beside the database that it waits for."""
    assert "annotations" not in rendered()["Job", "ml-ml-platform-setup-1"]["metadata"]
    upgraded = rendered("--is-upgrade")["Job", "ml-ml-platform-setup-upgrade"]["metadata"]
    assert upgraded["annotations"]["helm.sh/hook"] == "pre-upgrade"


def test_only_the_autoscaler_has_a_token_of_the_head() -> None:
    """It adds workers for jobs, where a value permits some."""
    for example, most in (("kind", 1), ("cloudnativepg", None)):
        cluster = of(example)["RayService", "ml-ml-platform"]["spec"]["rayClusterConfig"]
        workers, *added = cluster["workerGroupSpecs"]
        assert workers["minReplicas"] == workers["maxReplicas"] == workers["replicas"]
        assert [(each["minReplicas"], each["maxReplicas"]) for each in added] == ([(0, most)] if most else [])
        for each in added:  # which serve nothing
            assert "resources" not in each["rayStartParams"]
            selector = of(example)["Service", "ml-ml-platform"]["spec"]["selector"]
            assert not selector.items() <= each["template"]["metadata"]["labels"].items() | {("ray.io/serve", "true")}
        assert cluster.get("enableInTreeAutoscaling", False) == (most is not None)
        head = cluster["headGroupSpec"]["template"]["spec"]
        tokens = [each["name"] for each in head["volumes"] if "projected" in each]
        mounted = [each["name"] for each in head["containers"][0]["volumeMounts"]]
        assert not set(tokens) & set(mounted)
        scaler = cluster.get("autoscalerOptions", {"volumeMounts": []})
        assert [each["name"] for each in scaler["volumeMounts"] if each["name"] in tokens] == tokens
        assert len(tokens) == (most is not None)
        assert most is None or scaler["securityContext"] == head["containers"][0]["securityContext"]


def test_a_drain_may_take_one_worker_at_a_time() -> None:
    """By the number that stays: of the pods of a RayCluster Kubernetes can't tell how many there should be."""
    budget = of("production")["PodDisruptionBudget", "ml-ml-platform-workers"]["spec"]
    assert (budget["minAvailable"], "maxUnavailable" in budget) == (3, False)


def test_only_the_release_the_operator_and_clients_reach_ray() -> None:
    """Every port but that of the ingress and of the metrics is closed to other pods."""
    objects = of("production")
    rules = objects["NetworkPolicy", "ml-ml-platform-ray"]["spec"]["ingress"]
    within, operator, loop, clients, prometheus = rules
    assert "ports" not in within
    assert within["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "ml"
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "kuberay-operator"}
    assert loop["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "control-loop"
    assert loop["ports"] == [{"port": 8265}]
    gateways, test = clients["from"]
    assert gateways["namespaceSelector"]
    labels = objects["Pod", "ml-ml-platform-test"]["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()
    assert (clients["ports"], prometheus["ports"]) == ([{"port": 8000}], [{"port": 8080}])
    assert ("NetworkPolicy", "ml-ml-platform-ray") not in rendered("--set", "networkPolicy.enabled=false")


def test_calls_and_requests_have_one_listener() -> None:
    """Two ports of the Service, because a gateway speaks HTTP/2 only to a port that says so."""
    objects = of("production")
    http, grpc = objects["Service", "ml-ml-platform"]["spec"]["ports"]
    assert http["targetPort"] == grpc["targetPort"] == HTTP["port"]
    assert (grpc["appProtocol"], "appProtocol" in http) == ("kubernetes.io/h2c", False)
    calls, others = objects["HTTPRoute", "ml-ml-platform"]["spec"]["rules"]
    assert calls["matches"] == [{"path": {"type": "PathPrefix", "value": f"/{SERVICE}"}}]
    assert [rule["backendRefs"][0]["port"] for rule in (calls, others)] == [grpc["port"], http["port"]]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("cell.replicas=0", "cell/replicas"),
        ("cell.replica=2", "replica"),
        ("database.kind=mysql", "database/kind"),
        ("database.kind=external", "database/secret"),
        ("database.secret=mine", "database/secret"),
        ("artifacts.url=http://bucket", "artifacts/url"),
        ("image.digest=latest", "image/digest"),
        ("settings.PATH=/", "PATH"),
        ("jobs.maxWorkers=-1", "jobs/maxWorkers"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, named: str) -> None:
    """Before anything is sent to the cluster."""
    refused = helm("template", "ml", str(CHART), "--set", value)
    assert refused.returncode != 0
    assert named in refused.stderr.replace(".", "/")


def test_every_value_is_in_the_schema_and_explained() -> None:
    """A value without a description is one that nobody finds."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text().splitlines()
    assert yaml.safe_load("\n".join(text)).keys() == schema["properties"].keys() - {"global"}
    for number, line in enumerate(text):
        if line and line[0] not in "# " and line.endswith(":"):
            following = text[number - 1] + text[number + 1]
            assert "#" in following, f"{line} has no description"


OPERATORS = {
    "ray.io/v1/RayService": ("Install KubeRay's operator 1.6 or newer", ()),
    "postgresql.cnpg.io/v1/Cluster": ("Install the CloudNativePG operator first", ("database.kind=cloudnativepg",)),
    "gateway.networking.k8s.io/v1/HTTPRoute": ("set ingress instead", ("httpRoute.parentRefs[0].name=front",)),
    "monitoring.coreos.com/v1/PodMonitor": ("Install the Prometheus operator first", ("monitoring.podMonitor=true",)),
}


@pytest.mark.parametrize("major", PACKAGES)
@pytest.mark.parametrize("kind", OPERATORS)
def test_a_cluster_without_an_operator_is_refused(kind: str, major: int) -> None:
    """By both majors, before anything is installed; with a version of the operator that serves another kind as well."""
    remedy, values = OPERATORS[kind]
    known = ["v1/Pod", *(each for each in OPERATORS if each != kind), f"{kind.partition('/')[0]}/v1alpha1/Other"]
    options = [*(f"--api-versions={each}" for each in known), *(f"--set={each}" for each in values)]
    refused = helm("template", "ml", str(CHART), *options, major=major)
    assert refused.returncode != 0
    assert f"The cluster has no {kind}. " in refused.stderr
    assert remedy in refused.stderr
    assert helm("template", "ml", str(CHART), *options, f"--api-versions={kind}", major=major).returncode == 0
