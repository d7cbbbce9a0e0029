"""What stands in deploy/, by the linters of its own kind."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}")


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())


def pods(manifest):
    cluster = manifest["spec"]["rayClusterConfig"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def check_pod(template):
    import kubernetes_validate

    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **copy.deepcopy(template)}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(HADOLINT is None, reason="hadolint has no wheel for this machine")
def test_dockerfile(tmp_path):
    subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], check=True)
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((DEPLOY / "Dockerfile").read_text().replace("libgomp1=*", "libgomp1"))
    assert subprocess.run([HADOLINT, wrong], capture_output=True).returncode == 1


def test_pods_are_kubernetes_own(manifest):
    for template in pods(manifest):
        check_pod(template)
    wrong = copy.deepcopy(pods(manifest)[0])
    wrong["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(Exception, match="volumeMount"):
        check_pod(wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own import
def test_what_ray_serves_is_rays_own(manifest):
    pytest.importorskip("ray")
    from ray.serve.schema import ServeDeploySchema

    from offramp.cluster.serve import Args

    (app,) = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"])).applications
    assert app.import_path == "offramp.cluster.serve:build"
    assert Args(**app.args).threads == app.deployments[0].ray_actor_options.num_cpus


def test_image_has_every_extra_that_is_there():
    import tomllib

    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    said = (DEPLOY / "Dockerfile").read_text().split("/source[")[1].split("]")[0].split(",")
    assert set(said) <= project["optional-dependencies"].keys()
    assert f"offramp:{project['version']}" in (DEPLOY / "rayservice.yaml").read_text()
