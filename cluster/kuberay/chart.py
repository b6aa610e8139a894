"""The same objects as a Helm chart: images, sizes of groups and volumes are values, the rest is as rendered."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from cluster.kuberay.identity import PART_LABEL, Manifest
from cluster.kuberay.render import as_yaml, file_name
from cluster.kuberay.settings import ClusterSettings

_COUNTS = ("replicas", "minReplicas", "maxReplicas")
_MARK = re.compile(r"@@(\w+)/([\w.-]+)(?:/(\w+))?@@")
Values = dict[str, Any]


def chart(cluster: ClusterSettings, manifests: Sequence[Manifest], *, version: str) -> dict[str, str]:
    """Path below the chart's folder -> text.

    Namespaces, and what comes with them, stand in `namespaces.yaml`, which is applied before the chart is installed.
    `version` is that of the product.
    """
    values: Values = {"images": {}, "workers": {}, "storage": {}}
    given = [manifest for manifest in manifests if _is_given(manifest)]
    templates = [_marked(cluster, copy.deepcopy(m), values) for m in manifests if not _is_given(m)]
    about = {
        "apiVersion": "v2",
        "name": cluster.name,
        "description": "SWE Fleet on KubeRay; made by `fleet cluster render --helm`, change the cluster's file instead",
        "type": "application",
        "version": version,
        "appVersion": version,
    }
    files = {"Chart.yaml": yaml.safe_dump(about, sort_keys=False), "values.yaml": yaml.safe_dump(values)}
    files["namespaces.yaml"] = as_yaml(given)
    files |= {f"templates/{file_name(n, m)}": _template(as_yaml([m])) for n, m in enumerate(templates, 1)}
    return files


def _is_given(manifest: Manifest) -> bool:
    # They are there before the chart (Secrets lie in them), and Helm refuses what it did not make.
    return manifest["kind"] == "Namespace" or manifest["metadata"]["name"] == "default"


def _marked(cluster: ClusterSettings, manifest: Manifest, values: Values) -> Manifest:
    spec = manifest.get("spec", {})
    part = manifest["metadata"]["labels"][PART_LABEL]
    match manifest["kind"]:
        case "RayService" | "RayCluster":
            _mark_ray(cluster, spec.get("rayClusterConfig", spec), values)
        case "StatefulSet":
            _mark(spec["template"]["spec"]["containers"][0], "image", values, "images", part)
            for claim in spec.get("volumeClaimTemplates", ()):
                _mark(claim["spec"]["resources"]["requests"], "storage", values, "storage", part)
        case "PersistentVolumeClaim":
            _mark(spec["resources"]["requests"], "storage", values, "storage", part)
        case _:
            pass
    return manifest


def _mark_ray(cluster: ClusterSettings, spec: Manifest, values: Values) -> None:
    _mark(_container(spec["headGroupSpec"]), "image", values, "images", "head")
    for group, settings in zip(spec["workerGroupSpecs"], cluster.workers, strict=True):
        _mark(_container(group), "image", values, "images", "gpu" if settings.pool == "gpu" else "worker")
        counts: dict[str, int] = values["workers"].setdefault(settings.name, {})
        for count in _COUNTS:
            counts[count] = group[count]
            group[count] = f"@@workers/{settings.name}/{count}@@"


def _container(group: Manifest) -> Manifest:
    return group["template"]["spec"]["containers"][0]


def _mark(place: Manifest, key: str, values: Values, kind: Literal["images", "storage"], name: str) -> None:
    values[kind][name] = place[key]
    place[key] = f"@@{kind}/{name}@@"


def _template(text: str) -> str:
    # What Helm would take for its own is written so that it comes out as it stood.
    text = text.replace("{{", '{{ "{{" }}')
    return re.sub(rf"'?{_MARK.pattern}'?", _reference, text)


def _reference(mark: re.Match[str]) -> str:
    kind, name, inner = mark.groups()
    ending = f".{inner} | int" if inner else " | quote"
    return f'{{{{ (index .Values.{kind} "{name}"){ending} }}}}'
