"""`raywise cluster`: rent what a definition describes, from a cloud or from Kubernetes, look at it, give it back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cluster.catalog import Catalog
from cluster.cloud_status import NodeCounts, counts_of_kuberay, counts_of_ray_status
from cluster.definition import ClusterDefinition
from cluster.provider_definition import (
    PROVIDERS,
    AwsProvider,
    ExistingProvider,
    KubeRayProvider,
    LaunchedProvider,
    RentingProvider,
)
from cluster.render import node_costs, pod_monitor, ray_cluster, ray_launcher, usd_h, with_replicas
from dashboards.clouds import cost_table, status_table
from workloads.errors import Problem, SpecError

from . import cloud_tools
from .common import (
    BAD_INPUT,
    FAILED,
    CatalogOption,
    HomeOption,
    JsonFlag,
    WideFlag,
    console,
    fail,
    friendly,
    home_of,
    print_json,
    screen,
)

cluster_app = typer.Typer(
    help="Rent a cluster from a cloud or Kubernetes, look at it, end it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)

FileOption = Annotated[Path, typer.Option("--cluster", metavar="FILE", help="Cluster definition with a provider.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
CLUSTERS = "clusters"
"""In the home folder: what `ray` and `kubectl` were told, a file for each cluster."""


@cluster_app.command()
def render(
    cluster: FileOption,
    provider: Annotated[str | None, typer.Option(help="Another one than the file names: aws, kuberay, ...")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there, not to the screen.")] = None,
    catalog: CatalogOption = None,
) -> None:
    """Print what Ray's launcher, or KubeRay, is told of a cluster. Changes nothing."""
    if provider is not None and provider not in PROVIDERS:
        fail(f"unknown provider {provider!r}\n  hint: one of {', '.join(PROVIDERS)}", BAD_INPUT)
    with friendly():
        known, definition, renting = _read(cluster, catalog, provider)
        text = _text(definition, known, renting)
        if output is None:
            sys.stdout.write(text)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            fail(f"{output}: cannot be written: {error}", BAD_INPUT)
        console.print(f"wrote {output}", markup=False)


@cluster_app.command()
def up(
    cluster: FileOption,
    yes: YesFlag = False,
    catalog: CatalogOption = None,
    wide: WideFlag = False,
    home: HomeOption = None,
) -> None:
    """Rent a cluster, or change the one that is there: says what it costs, and asks."""
    with friendly():
        known, definition, provider = _read(cluster, catalog)
        screen(wide).print(cost_table(node_costs(definition, known), f"What {_where(provider)} costs an hour"))
        for line in _remarks(definition):
            console.print(line, soft_wrap=True, markup=False)
        cloud_tools.check_machine(provider)
        _ask(f"rent it from {_type(provider)}?", yes)
        if isinstance(provider, LaunchedProvider) and (made := cloud_tools.make_token(provider)) is not None:
            console.print(f"the cluster's token is in {made}", soft_wrap=True, markup=False)
        if isinstance(provider, KubeRayProvider):
            file = _keep(definition, known, provider, home, _live(provider))
            cloud_tools.run("kubectl", "apply", "-f", str(file))
        else:
            file = _keep(definition, known, provider, home)
            # What Ray remembers of an earlier start may be of another account, or a key that is gone.
            cloud_tools.run("ray", "up", str(file), "--yes", "--no-config-cache")
    console.print(_next(provider, cluster), soft_wrap=True, markup=False)


@cluster_app.command()
def down(cluster: FileOption, yes: YesFlag = False, catalog: CatalogOption = None, home: HomeOption = None) -> None:
    """End a rented cluster with all of its nodes, and what runs there."""
    with friendly():
        known, definition, provider = _read(cluster, catalog)
        cloud_tools.check_machine(provider)
        _ask(f"end {_where(provider)} with all of its nodes?", yes)
        file = _keep(definition, known, provider, home)
        if isinstance(provider, KubeRayProvider):
            cloud_tools.run("kubectl", "delete", "-f", str(file), "--ignore-not-found")
        else:
            cloud_tools.run("ray", "down", str(file), "--yes")
    console.print(f"ended: {_where(provider)}", markup=False)


@cluster_app.command()
def status(
    cluster: FileOption,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    wide: WideFlag = False,
    home: HomeOption = None,
) -> None:
    """Show a rented cluster's nodes by kind, and what they cost an hour now."""
    with friendly():
        known, definition, provider = _read(cluster, catalog)
        cloud_tools.check_machine(provider)
        counts = _counts(definition, known, provider, home)
    costs = node_costs(definition, known)
    if json_:
        total, unknown = usd_h(costs, counts.all())
        there, coming = dict(counts.there), dict(counts.coming)
        remarks = list(counts.remarks)
        print_json({"there": there, "coming": coming, "usd_h": total, "unpriced": list(unknown), "remarks": remarks})
        return
    screen(wide).print(status_table(costs, counts, f"Nodes of {_where(provider)}"))
    for remark in counts.remarks:
        console.print(f"note: {remark}", style="yellow", soft_wrap=True, markup=False)


def _read(
    file: Path, catalog: Path | None, provider: str | None = None
) -> tuple[Catalog, ClusterDefinition, RentingProvider]:
    """A definition of a cluster that is rented, from the provider it names or another. Raises SpecError."""
    known = Catalog.load(catalog)
    definition = ClusterDefinition.load(file, known, provider=provider)
    return known, definition, _renting(definition, file)


def _renting(definition: ClusterDefinition, file: Path) -> RentingProvider:
    """The provider, where it is one that rents; the command ends where it is none."""
    provider = definition.provider
    if isinstance(provider, RentingProvider):
        return provider
    if isinstance(provider, ExistingProvider):
        message = "this cluster is there already, nothing is rented for it"
        hint = f"`raywise up --address {provider.address}` starts the service for it"
    else:
        message = "this cluster is on this machine, nothing is rented for it"
        hint = f"`raywise up --cluster {file}` starts it; a cloud needs a `provider` (docs/cluster.md)"
    raise SpecError(Problem(message, "provider.type", hint, str(file)))


def _live(provider: KubeRayProvider) -> Any:
    """The RayCluster that is there; None where there is none."""
    where = ("--namespace", provider.namespace, "--output", "json", "--ignore-not-found")
    text = cloud_tools.output("kubectl", "get", "raycluster", provider.name, *where)
    return json.loads(text) if text.strip() else None


def _text(definition: ClusterDefinition, catalog: Catalog, provider: RentingProvider, live: Any = None) -> str:
    if not isinstance(provider, KubeRayProvider):
        return yaml.safe_dump(ray_launcher(definition, catalog), sort_keys=False, width=120)
    documents = [with_replicas(ray_cluster(definition, catalog), live)]
    documents += [pod_monitor(definition)] if provider.pod_monitor else []
    return "---\n".join(yaml.dump(each, Dumper=_Plain, sort_keys=False, width=120) for each in documents)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what is the same in many pods is written out."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _keep(
    definition: ClusterDefinition, catalog: Catalog, provider: RentingProvider, home: Path | None, live: Any = None
) -> Path:
    """Write what the tool is told where it is found again. No secret is in it."""
    folder = home_of(home).path / CLUSTERS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_type(provider)}-{provider.name}.yaml"
    path.write_text(_text(definition, catalog, provider, live), encoding="utf-8")
    os.chmod(path, 0o600)
    return path


def _counts(
    definition: ClusterDefinition, catalog: Catalog, provider: RentingProvider, home: Path | None
) -> NodeCounts:
    if isinstance(provider, KubeRayProvider):
        where = ("--namespace", provider.namespace, "--output", "json")
        found = cloud_tools.output_json("kubectl", "get", "raycluster", provider.name, *where)
        pods = cloud_tools.output_json(
            "kubectl", "get", "pods", "--selector", f"ray.io/cluster={provider.name}", *where
        )
        return counts_of_kuberay(found, pods)
    file = _keep(definition, catalog, provider, home)
    text = cloud_tools.output("ray", "exec", str(file), "RAY_AUTH_MODE=token ray status")
    counts = counts_of_ray_status(text)
    if counts is None:
        fail(f"`ray status` on the head said nothing of nodes:\n{text.strip()[-500:]}", FAILED)
    return counts


def _ask(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question):
        console.print("nothing was done")
        raise typer.Exit(FAILED)


def _remarks(definition: ClusterDefinition) -> list[str]:
    """What to know before it is rented."""
    provider, found = definition.provider, []
    if definition.rent_cap_usd_h is not None:
        found.append(f"the service rents for ${definition.rent_cap_usd_h:g} an hour at most (rent_cap_usd_h)")
    if isinstance(provider, AwsProvider) and provider.image is None:
        found.append("note: without provider.image nodes have Ray's default AMI, too old for today's PyTorch")
    if isinstance(provider, LaunchedProvider | KubeRayProvider) and provider.redis is None:
        found.append("note: without provider.redis the cluster is lost with its head")
    return found


def _next(provider: RentingProvider, file: Path) -> str:
    status = f"`raywise cluster status --cluster {file}`"
    if isinstance(provider, KubeRayProvider):
        address = f"{provider.name}-head-svc.{provider.namespace}.svc:6379"
        return f"asked for; {status} shows what is there. The service reaches it at {address}"
    return f"up; {status} shows its nodes. On its head: `raywise up --address 127.0.0.1:6379`"


def _where(provider: RentingProvider) -> str:
    return f"{provider.name} on {_type(provider)}"


def _type(provider: RentingProvider) -> str:
    return str(getattr(provider, "type", ""))
