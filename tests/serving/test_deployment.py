"""TensorFlow Serving's configurations: they parse, and the files agree with each other and with it.

Docker and Kubernetes are not run here. What can be known without them is: protocol buffers, flags that
exist, and names, ports, paths and labels that one file takes from another.
"""

import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

SERVING = Path(__file__).resolve().parents[2] / "serving"
KUBERNETES = SERVING / "kubernetes"
CONFIGS = ("models.config", "batching.config", "monitoring.config")
GUIDE = (SERVING.parent / "docs/serving.md").read_text()
GUIDE = GUIDE[GUIDE.index("## TensorFlow Serving") : GUIDE.index("## The local server")]

# tensorflow_model_server's, from its main.cc.
FLAGS = """
    port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
    rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models
    batching_parameters_file enable_per_model_batching_parameters model_config_file
    model_config_file_poll_wait_seconds model_name model_base_path num_load_threads
    num_unload_threads max_num_load_retries load_retry_interval_micros
    file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
    tensorflow_session_config_file tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism
    use_alts_credentials ssl_config_file platform_config_file per_process_gpu_memory_fraction
    saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
    num_request_iterations_for_warmup version monitoring_config_file
    remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
    num_tflite_interpreters_per_pool enable_signature_method_name_check
    xla_cpu_compilation_enabled enable_profiler thread_pool_factory_config_file
"""


# Of messages that the Python package leaves out: session_bundle_config.proto, monitoring_config.proto.
DESCRIPTORS = """
    name: "left_out.proto" package: "tensorflow.serving" syntax: "proto3"
    dependency: "google/protobuf/wrappers.proto"
    message_type {
      name: "BatchingParameters"
      field { name: "max_batch_size" number: 1 type_name: ".google.protobuf.Int64Value" }
      field { name: "batch_timeout_micros" number: 2 type_name: ".google.protobuf.Int64Value" }
      field { name: "max_enqueued_batches" number: 3 type_name: ".google.protobuf.Int64Value" }
      field { name: "num_batch_threads" number: 4 type_name: ".google.protobuf.Int64Value" }
      field { name: "thread_pool_name" number: 5 type_name: ".google.protobuf.StringValue" }
      field { name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }
      field { name: "pad_variable_length_inputs" number: 7 type: TYPE_BOOL }
    }
    message_type {
      name: "PrometheusConfig"
      field { name: "enable" number: 1 type: TYPE_BOOL }
      field { name: "path" number: 2 type: TYPE_STRING }
    }
    message_type {
      name: "MonitoringConfig"
      field { name: "prometheus_config" number: 1 type_name: ".tensorflow.serving.PrometheusConfig" }
    }
"""


def left_out(name: str):
    """An empty message of that name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(DESCRIPTORS, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()


def models(text: str):
    """The only model of a `ModelServerConfig`."""
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return model


def documents(folder: str) -> dict[str, dict]:
    """The Kubernetes objects in a folder, by kind."""
    paths = sorted((KUBERNETES / folder).glob("*.yaml"))
    found = [document for path in paths for document in yaml.safe_load_all(path.read_text())]
    assert len({document["kind"] for document in found}) == len(found)
    return {document["kind"]: document for document in found}


def compose(name: str = "docker-compose.yml") -> dict:
    return yaml.safe_load((SERVING / name).read_text())["services"]["tensorflow-serving"]


@pytest.fixture(scope="module")
def cpu():
    return documents("cpu")


@pytest.fixture
def pod(cpu):
    return cpu["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


# --- TensorFlow Serving's own files


def test_labels_point_at_versions_that_are_loaded():
    model = models((SERVING / "models.config").read_text())
    assert (model.name, model.base_path) == ("wflw", "/models/wflw")
    assert model.model_platform == "tensorflow"
    assert set(model.version_labels) == {"stable", "canary"}
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_a_canary_and_the_way_back_as_the_readme_says(tmp_path):
    commands = re.findall(r"^ {4}(sed -i '.*') \$CONFIG", GUIDE, re.MULTILINE)
    assert len(commands) == 5
    file = tmp_path / "models.config"
    for source in (SERVING / "models.config", KUBERNETES / "cpu/config.yaml"):
        file.write_text(source.read_text())
        states = []
        for command in commands:
            subprocess.run(f"{command} {file}", shell=True, check=True)
            text = file.read_text()
            if source.suffix == ".yaml":
                text = yaml.safe_load(text)["data"]["models.config"]
            model = models(text)
            labels = model.version_labels
            versions = list(model.model_version_policy.specific.versions)
            states.append((versions, labels["canary"], labels["stable"]))
        assert states == [
            ([1, 2], 1, 1),
            ([1, 2], 2, 1),
            ([1, 2], 2, 2),
            ([1, 2], 2, 1),
            ([2], 2, 1),
        ]


def test_batches_end_at_the_largest_allowed_size():
    text = (SERVING / "batching.config").read_text()
    parsed = text_format.Parse(text, left_out("tensorflow.serving.BatchingParameters"))
    sizes = list(parsed.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == parsed.max_batch_size.value == 32
    for name in ("batch_timeout_micros", "num_batch_threads", "max_enqueued_batches"):
        assert getattr(parsed, name).value > 0
    assert f"hold {sizes[-1]} rows" in GUIDE


def test_metrics_are_where_prometheus_is_sent(cpu):
    text = (SERVING / "monitoring.config").read_text()
    config = text_format.Parse(
        text, left_out("tensorflow.serving.MonitoringConfig")
    ).prometheus_config
    annotations = cpu["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert config.enable and config.path == "/monitoring/prometheus/metrics"
    assert annotations["prometheus.io/path"] == config.path
    assert annotations["prometheus.io/port"] == "8501"


# --- flags, versions, files


def test_flags_exist(container):
    given = [*container["args"], *compose()["command"]]
    assert len(given) == 14
    for text in [GUIDE, *map(read_config, CONFIGS)]:
        text = re.sub(r"^ {4}(?!docker run).*", "", text, flags=re.MULTILINE)  # other commands
        given += [flag for flag in re.findall(r"(?<![\w-])--\w+(?:=[^\s`)]+)?", text)]
        names = {flag[2:].partition("=")[0] for flag in given} - {"rm"}  # Docker's
    assert names <= set(FLAGS.split())
    assert {"enable_batching", "rest_api_enable_cors_support"} <= names  # those of the prose too


def read_config(name: str) -> str:
    return (SERVING / name).read_text()


def test_every_file_that_a_flag_names_is_mounted(cpu, container):
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = dict(volume.split(":")[-3:-1][::-1] for volume in compose()["volumes"])
    assert mounts["config"] == "/config" and mounts["models"] == "/models"
    assert set(volumes) == {"/config", "/models"}
    base_path = Path(models(read_config("models.config")).base_path)
    assert base_path.is_relative_to(mounts["models"])
    for flag in [*container["args"], *compose()["command"], *re.findall(r"--\w+=/\S+", GUIDE)]:
        value = flag.partition("=")[2].rstrip("`)")
        if value.startswith("/"):
            assert Path(value).parent == Path("/config")
            assert Path(value).name in cpu["ConfigMap"]["data"]
            assert (SERVING / Path(value).name).is_file()


def test_the_config_map_holds_the_same_files(cpu):
    assert cpu["ConfigMap"]["data"] == {name: read_config(name) for name in CONFIGS}


def test_one_version_of_tensorflow_serving_everywhere(container):
    gpu = documents("gpu")["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    constraints = (SERVING.parent / "constraints.txt").read_text()
    tensorflow = re.search(r"^tensorflow==(\d+\.\d+)", constraints, re.MULTILINE)[1]
    version = container["image"].removeprefix("tensorflow/serving:")
    assert version.startswith(f"{tensorflow}.")
    assert gpu["image"] == f"{container['image']}-gpu"
    assert compose()["image"] == f"tensorflow/serving:${{TF_SERVING_TAG:-{version}}}"
    assert compose("docker-compose.gpu.yml")["image"] == f"{compose()['image']}-gpu"
    assert set(re.findall(r"tensorflow/serving:([\w.-]+)", GUIDE)) == {version}


# --- Docker


def test_ports_are_open_to_this_machine_alone():
    assert compose()["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert compose()["read_only"] is True and compose()["cap_drop"] == ["ALL"]
    assert all(volume.endswith(":ro") for volume in compose()["volumes"])


def test_as_many_threads_as_cpus():
    """Docker refuses more CPUs than a machine has, and two is what every machine has today."""
    arguments = dict(argument[2:].split("=") for argument in compose()["command"])
    cpus = compose()["deploy"]["resources"]["limits"]["cpus"]
    assert cpus == "${CPUS:-2}"
    for pool in ("intra", "inter"):
        assert arguments[f"tensorflow_{pool}_op_parallelism"] == cpus


def test_the_same_flags_as_in_kubernetes(container):
    """But for the numbers of threads, which follow the limits."""
    there, here = (
        {flag.partition("=")[0] for flag in flags}
        for flags in (container["args"], compose()["command"])
    )
    assert there == here
    assert {"--rest_api_num_threads=16"} <= set(container["args"]) & set(compose()["command"])


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (404, False)])
def test_the_health_check_asks_for_the_stable_version(status, healthy):
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        *shell, script = compose()["healthcheck"]["test"][1:]
        script = script.replace("/8501", f"/{server.server_port}")
        code = subprocess.run([*shell, script], timeout=10).returncode
        server.shutdown()
    assert (code == 0) is healthy
    check_path(asked[0])


# --- Kubernetes


def check_path(path: str) -> None:
    """A probe's path is one of TensorFlow Serving's, for a model and a label that there are."""
    model = models(read_config("models.config"))
    name, label = re.fullmatch(r"/v1/models/(\w+)/labels/(\w+)/metadata", path).groups()
    assert name == model.name and label == "stable" in model.version_labels


def test_probes(container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for probe in ("startupProbe", "readinessProbe"):
        request = container[probe]["httpGet"]
        check_path(request["path"])
        assert request["port"] == "rest"
    assert container["livenessProbe"]["tcpSocket"]["port"] in ports
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_a_server_outlives_the_requests_to_it(pod, container):
    (*_, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) >= 10 and pod["terminationGracePeriodSeconds"] > int(seconds)


def test_selectors_find_the_pods(cpu):
    labels = cpu["Deployment"]["spec"]["template"]["metadata"]["labels"]
    spread = cpu["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        cpu["Deployment"]["spec"]["selector"]["matchLabels"],
        cpu["Service"]["spec"]["selector"],
        cpu["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in spread),
    ]
    assert all(selector == labels for selector in selectors)


def test_names_that_one_object_takes_from_another(cpu, pod, container):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == cpu["ConfigMap"]["metadata"]["name"]
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == cpu["PersistentVolumeClaim"]["metadata"]["name"] and claim in GUIDE
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    target = cpu["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["kind"] == "Deployment"
    assert target["name"] == cpu["Deployment"]["metadata"]["name"]
    assert "replicas" not in cpu["Deployment"]["spec"]  # or each `apply` would undo the autoscaler
    ports = {port["name"]: port for port in cpu["Service"]["spec"]["ports"]}
    for port in container["ports"]:
        service = ports[port["name"]]
        assert service["port"] == port["containerPort"] and service["targetPort"] == port["name"]


def test_the_container_has_limits_and_no_privileges(pod, container):
    resources = container["resources"]
    assert set(resources["limits"]) == set(resources["requests"]) == {"cpu", "memory"}
    arguments = dict(argument[2:].split("=") for argument in container["args"])
    # TensorFlow would start as many threads as the machine has cores.
    for pool in ("intra", "inter"):
        assert arguments[f"tensorflow_{pool}_op_parallelism"] == resources["limits"]["cpu"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert all(
        mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] != "tmp"
    )


@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_the_customization_lists_all_files(folder):
    listed = documents(folder)["Kustomization"]
    assert f"kubectl apply -k serving/kubernetes/{folder}" in GUIDE
    patches = [patch["path"] for patch in listed.get("patches", [])]
    files = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    own = {name for name in listed["resources"] if not name.startswith("..")}
    assert own | set(patches) == files
    bases = set(listed["resources"]) - own
    assert all((KUBERNETES / folder / base / "kustomization.yaml").is_file() for base in bases)


def test_the_gpu_variant_patches_what_there_is(cpu, container):
    gpu = documents("gpu")
    for kind in ("Deployment", "HorizontalPodAutoscaler"):
        for key in ("apiVersion", "kind"):
            assert gpu[kind][key] == cpu[kind][key]
        assert gpu[kind]["metadata"]["name"] == cpu[kind]["metadata"]["name"]
    assert gpu["HorizontalPodAutoscaler"]["$patch"] == "delete"
    (patched,) = gpu["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container["name"]
    assert patched["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    (device,) = compose("docker-compose.gpu.yml")["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_the_server_computes_with_onednn():
    compose = yaml.safe_load((SERVING / "docker-compose.yml").read_text())
    environment = compose["services"]["tensorflow-serving"]["environment"]
    deployment = yaml.safe_load((KUBERNETES / "cpu/deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    set_there = {each["name"]: each["value"] for each in container["env"]}
    assert environment == set_there == {"TF_ENABLE_ONEDNN_OPTS": "1"}
