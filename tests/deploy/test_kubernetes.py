"""The Kubernetes manifests: their schema, the restricted profile, and that the pod and the configuration fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import swarmkeel
from swarmkeel.config import load_config

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
SPEC: dict[str, Any] = MANIFESTS["pod"]["spec"]
SIDECAR: dict[str, Any] = SPEC["initContainers"][0]
SERVER: dict[str, Any] = SPEC["containers"][0]


# The first version where native sidecars are there without being asked for, and the newest one that is known.
@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_the_check_of_manifests_sees_what_is_wrong() -> None:
    wrong = MANIFESTS["pod"] | {"spec": SPEC | {"container": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.29", strict=True)


@pytest.mark.parametrize("container", [SIDECAR, SERVER], ids=lambda container: container["name"])
def test_containers_are_in_the_restricted_profile(container: dict[str, Any]) -> None:
    context = SPEC["securityContext"] | container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] != 0
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & SPEC.keys()
    assert all(volume.keys() & {"configMap", "emptyDir"} for volume in SPEC["volumes"])


def test_the_sidecar_is_a_native_one() -> None:
    assert SIDECAR["restartPolicy"] == "Always"
    assert SIDECAR["image"].endswith(f"/swarmkeel:{swarmkeel.__version__}")
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= SIDECAR.keys()


def test_the_configuration_fits_the_pod(tmp_path: Path) -> None:
    (name,) = MANIFESTS["configmap"]["data"]
    path = tmp_path / name
    path.write_text(MANIFESTS["configmap"]["data"][name])
    config = load_config(path)

    mounts = {mount["name"]: mount["mountPath"] for mount in SIDECAR["volumeMounts"]}
    assert SIDECAR["args"] == ["run", "--config", f"{mounts['config']}/{name}"]
    assert SIDECAR["ports"] == [{"name": "metrics", "containerPort": config.http.port}]
    assert config.admin.socket is not None
    for written, volume in (
        (config.journal.path, "state"),
        (config.swarm.identity_path, "state"),
        (config.server.socket, "control"),
        (config.admin.socket, "sidecar-tmp"),
    ):
        assert written is not None
        # Volumes are open to everyone, which is refused of journals, keys and sockets: each needs a folder within.
        assert Path(mounts[volume]) in written.parent.parents
    assert f"--control-socket={config.server.socket}" in SERVER["args"]
    assert {"name": "control", "mountPath": mounts["control"]} in SERVER["volumeMounts"]
