"""The Helm chart, by a real helm: lints, renders valid manifests, refuses wrong values, carries what the repo holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml

from tests.tools.helm import helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "mecexporter"
KUBERNETES = ("1.25", "1.31", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
EVERYTHING: dict[str, Any] = {
    "image": {"tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-node-critical",
    "hostNetwork": False,
    "port": 9999,
    "config": {"roles": ["compute"], "intervals": {"live": "5s"}, "web": {"local_socket": "/run/mecexporter/a.sock"}},
    "podMonitor": {"labels": {"release": "prometheus"}, "site": "north"},
    "prometheusRule": {"labels": {"release": "prometheus"}},
    "holders": {"visible": True, "appArmorUnconfined": True},
    "hostPaths": {"libvirtRun": "/run/libvirt/qemu"},
    "api": {
        "enabled": True,
        "cloud": "site",
        "cloudsSecret": "clouds",
        "cells": {"cell1": "mysql+pymysql://reader:hush@db.example/nova_cell1"},
        "config": {"intervals": {"openstack": "1m"}, "host": {"state_dir": "/var/lib/other"}},
        "nodeSelector": {"openstack-control-plane": "enabled"},
        "tolerations": [{"operator": "Exists"}],
        "stateClaim": "mecexporter-state",
    },
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
}


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False, timeout=60)


def render(tmp_path: Path, values: dict[str, Any], *options: str) -> list[dict[str, Any]]:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run_helm("template", "release", str(CHART), "--values", str(file), *options)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def rendered_config(manifests: list[dict[str, Any]], kind: str = "ConfigMap", data: str = "data") -> str:
    of = of_kind(manifests, kind)
    (text,) = (manifest[data]["config.yaml"] for manifest in of if "config.yaml" in manifest[data])
    return str(text)


def sources(directory: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob(pattern)}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_lints_strictly(tmp_path: Path, values: dict[str, Any]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run_helm("lint", "--strict", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_manifests_are_valid(tmp_path: Path, version: str, values: dict[str, Any]) -> None:
    for manifest in render(tmp_path, values, "--kube-version", version, "--api-versions", OPERATOR):
        if manifest["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_defaults_make_no_more_than_a_daemonset_and_config_maps(tmp_path: Path) -> None:
    assert {manifest["kind"] for manifest in render(tmp_path, {})} == {"DaemonSet", "ConfigMap"}


def test_runs_without_any_privilege_but_roots_id(tmp_path: Path) -> None:
    (daemonset,) = of_kind(render(tmp_path, {}), "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]},
    }
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    assert [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["run", "state"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_probes_and_monitor_meet_the_port(tmp_path: Path) -> None:
    manifests = render(tmp_path, EVERYTHING, "--api-versions", OPERATOR)
    (daemonset,) = of_kind(manifests, "DaemonSet")
    template = daemonset["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9999, "protocol": "TCP"}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    (deployment,) = of_kind(manifests, "Deployment")
    monitors, policies = of_kind(manifests, "PodMonitor"), of_kind(manifests, "NetworkPolicy")
    for workload, monitor, policy in zip((daemonset, deployment), monitors, policies, strict=True):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] == "metrics"
        assert {"targetLabel": "site", "replacement": "north"} in endpoint["relabelings"]
        for selected in (workload["spec"]["selector"], monitor["spec"]["selector"], policy["spec"]["podSelector"]):
            for other in (daemonset, deployment):
                labels = other["spec"]["template"]["metadata"]["labels"]
                assert (selected["matchLabels"].items() <= labels.items()) is (other is workload)


def test_config_is_passed_through(tmp_path: Path) -> None:
    config = yaml.safe_load(rendered_config(render(tmp_path, EVERYTHING)))
    assert config == {
        "roles": ["compute"],
        "intervals": {"live": "5s"},
        "web": {"local_socket": "/run/mecexporter/a.sock", "listen": "0.0.0.0:9999"},
        "host": {"proc": "/host/proc", "sysfs": "/host/sys"},
    }


@pytest.mark.parametrize(
    ("values", "where"),
    [({}, ("ConfigMap", "data")), (EVERYTHING, ("ConfigMap", "data")), (EVERYTHING, ("Secret", "stringData"))],
    ids=["defaults", "everything", "api"],
)
def test_config_is_accepted_by_the_exporter(tmp_path: Path, values: dict[str, Any], where: tuple[str, str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(rendered_config(render(tmp_path, values), *where))
    command = [sys.executable, "-m", "mecexporter", "config", "--config", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_state_is_mounted_where_the_config_says(tmp_path: Path) -> None:
    (daemonset,) = of_kind(render(tmp_path, {"config": {"host": {"state_dir": "/var/lib/other"}}}), "DaemonSet")
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert {"name": "state", "mountPath": "/var/lib/other"} in container["volumeMounts"]


def test_who_holds_a_vf_is_seen_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for version, values in (("1.25", EVERYTHING), ("1.31", EVERYTHING), ("1.31", {})):
        (daemonset,) = of_kind(render(tmp_path, values, "--kube-version", version), "DaemonSet")
        template = daemonset["spec"]["template"]
        (container,) = template["spec"]["containers"]
        added = ["DAC_OVERRIDE", "SYS_PTRACE"] if values else ["DAC_OVERRIDE"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": added}
        assert ("appArmorProfile" in container["securityContext"]) is bool(values and version == "1.31")
        assert any("apparmor" in name for name in template["metadata"]["annotations"]) is bool(
            values and version == "1.25"
        )
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["sys"] == {"name": "sys", "mountPath": "/host/sys", "readOnly": True}
        assert mounts["proc"] == {"name": "proc", "mountPath": "/host/proc", "readOnly": True}
        libvirt = {"name": "libvirt-run", "mountPath": "/run/libvirt/qemu", "readOnly": True}
        assert mounts.get("libvirt-run") == (libvirt if values else None)


def test_network_may_be_changed_only_where_conntrack_is_to_be_seen(tmp_path: Path) -> None:
    (daemonset,) = of_kind(render(tmp_path, {"conntrack": {"visible": True}}), "DaemonSet")
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"]["add"] == ["DAC_OVERRIDE", "NET_ADMIN"]


def test_records_of_all_hosts_are_read_by_a_pod_of_nobody(tmp_path: Path) -> None:
    manifests = render(tmp_path, EVERYTHING)
    (deployment,) = of_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "fsGroup": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert {"name": "state", "mountPath": "/var/lib/other"} in container["volumeMounts"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "mecexporter-state"}} in pod["volumes"]
    assert {"name": "clouds", "secret": {"secretName": "clouds", "defaultMode": 0o440}} in pod["volumes"]
    assert {"name": "OS_CLIENT_CONFIG_FILE", "value": "/etc/openstack/clouds.yaml"} in container["env"]
    assert yaml.safe_load(rendered_config(manifests, "Secret", "stringData")) == {
        "roles": ["api"],
        "intervals": {"openstack": "1m"},
        "web": {"listen": "0.0.0.0:9999"},
        "host": {"state_dir": "/var/lib/other"},
        "openstack": {"cloud": "site", "scope": "all"},
        "nova": {"cells": EVERYTHING["api"]["cells"]},
    }


def test_passwords_are_in_secrets_alone(tmp_path: Path) -> None:
    manifests = render(tmp_path, EVERYTHING, "--api-versions", OPERATOR)
    assert [manifest["kind"] for manifest in manifests if "hush" in json.dumps(manifest)] == ["Secret"]


def test_a_secret_of_ones_own_takes_the_place_of_ours(tmp_path: Path) -> None:
    manifests = render(tmp_path, {"api": {"enabled": True, "cloudsSecret": "clouds", "configSecret": "own"}})
    assert not of_kind(manifests, "Secret")
    (deployment,) = of_kind(manifests, "Deployment")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["secret"]["secretName"] == "own"
    assert "emptyDir" in volumes["state"]


def test_hosts_of_databases_take_a_release_of_their_own_with_certificates(tmp_path: Path) -> None:
    files = {"private_key": "/etc/ovn-tls/tls.key", "certificate": "/etc/ovn-tls/tls.crt",
             "ca_certificate": "/etc/ovn-tls/ca.crt"}  # fmt: skip
    values = {
        "nodeSelector": {"openstack-control-plane": "enabled"},
        "prometheusRule": {"enabled": False},
        "dashboards": {"enabled": False},
        "ovnTlsSecret": "ovn-certificates",
        "config": {"ovn": {"tls": files, "northbound": {"peers": ["ssl:192.0.2.12:6641"]}}},
    }
    manifests = render(tmp_path, values, "--api-versions", OPERATOR)
    assert not of_kind(manifests, "PrometheusRule")
    (daemonset,) = of_kind(manifests, "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "ovn-tls", "mountPath": "/etc/ovn-tls", "readOnly": True} in container["volumeMounts"]
    secret = {"secretName": "ovn-certificates", "defaultMode": 0o400}
    assert {"name": "ovn-tls", "secret": secret} in pod["volumes"]
    assert yaml.safe_load(rendered_config(manifests))["ovn"]["tls"] == files


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"imagee": {}}, "imagee"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"port": "9746"}, "/port"),
        ({"port": 0}, "/port"),
        ({"hostNetwork": "yes"}, "/hostNetwork"),
        ({"hostPaths": {"state": "relative"}}, "/hostPaths/state"),
        ({"config": {"interval": {}}}, "interval"),
        ({"config": {"roles": ["computer"]}}, "/config/roles"),
        ({"config": {"web": {"listen": "0.0.0.0:1"}}}, "/config/web/listen"),
        ({"config": {"host": {"proc": "/proc"}}}, "/config/host/proc"),
        ({"config": {"host": {"sysfs": "/sys"}}}, "/config/host/sysfs"),
        ({"config": {"nova": {"cells": {"cell1": "mysql://reader:hush@db/nova"}}}}, "/config/nova/cells"),
        ({"holders": {"visible": "yes"}}, "/holders/visible"),
        ({"hostPaths": {"libvirtRun": "relative"}}, "/hostPaths/libvirtRun"),
        ({"api": {"enabled": True, "cloudsSecret": "clouds"}}, "api.cloud"),
        ({"api": {"enabled": True, "cloud": "site"}}, "api.cloudsSecret"),
        ({"api": {"enabled": True, "cloudsSecret": "s", "configSecret": "own", "cloud": "site"}}, "api.configSecret"),
        ({"api": {"cells": {"cell1": "db.example"}}}, "/api/cells/cell1"),
        ({"api": {"config": {"openstack": {"scope": "host"}}}}, "/api/config/openstack/scope"),
        ({"api": {"config": {"nova": {"cells": {"cell1": "mysql://db/nova"}}}}}, "/api/config/nova/cells"),
        ({"podMonitor": {"interval": "often"}}, "/podMonitor/interval"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"networkPolicy": {"enabled": True}}, "networkPolicy.enabled"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, values: dict[str, Any], key: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run_helm("template", "release", str(CHART), "--values", str(file))
    assert done.returncode != 0
    assert key in done.stderr


def test_schema_knows_every_key_of_the_configuration() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    example = yaml.safe_load((ROOT / "packaging" / "config.example.yaml").read_text())
    assert set(schema["definitions"]["config"]["properties"]) == set(example)
    assert set(schema["properties"]) - {"global"} == set(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_copies_of_rules_and_dashboards_are_the_repos() -> None:
    assert sources(CHART / "files" / "alerts", "*") == sources(ROOT / "alerts", "*.rules.yaml")
    assert sources(CHART / "files" / "dashboards", "*") == sources(ROOT / "dashboards", "*.json")


def test_rules_and_dashboards_arrive_unchanged(tmp_path: Path) -> None:
    manifests = render(tmp_path, {}, "--api-versions", OPERATOR)
    rules = [manifest["spec"] for manifest in of_kind(manifests, "PrometheusRule")]
    assert rules == [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "alerts").glob("*.rules.yaml"))]
    dashboards: dict[str, str] = {}
    for manifest in of_kind(manifests, "ConfigMap"):
        if manifest["metadata"]["labels"].get("grafana_dashboard") == "1":
            dashboards |= manifest["data"]
    expected = {path.name: json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in dashboards.items()} == expected
