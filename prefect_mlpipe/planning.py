"""What a run would do, and why, before it does it.

Uses the very functions that a run uses (the keyer, `decide`), and executes nothing. A step below
one that runs cannot be known for certain: it is `run?` if its record would stand for it should
the step above make the same value again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prefect_mlpipe.baseline import Baseline
from prefect_mlpipe.compute.targets import compute_of
from prefect_mlpipe.core.decide import Options, Reuse, Run, decide
from prefect_mlpipe.core.graph import Graph, Node, Output
from prefect_mlpipe.core.manifest import Manifest, Reason, distinct
from prefect_mlpipe.core.telling.kept_code import KeptCode, kept
from prefect_mlpipe.engine.calls import InputLost
from prefect_mlpipe.engine.deciding import Decider
from prefect_mlpipe.engine.lint import argument_warnings, code_warnings
from prefect_mlpipe.engine.mapping import expand
from prefect_mlpipe.engine.outputs import Outputs
from prefect_mlpipe.engine.references import source_of
from prefect_mlpipe.engine.steprun import StepRun
from prefect_mlpipe.explaining import Side, explanation, side_of_record, values_in
from prefect_mlpipe.plans import Plan, StepPlan


class Barrier(BaseException):
    """Ends the tracing of a plan: the body asked for a value that only a run can give.

    Not an `Exception`, so that no `except` of the body takes it for a failure of a step.
    """


class Planner:
    """Decides the nodes of a graph as they are traced, without running any."""

    def __init__(
        self, graph: Graph, outputs: Outputs, decider: Decider, baseline: Baseline
    ) -> None:
        self.graph = graph
        self._outputs = outputs
        self._decider = decider
        self._keyer = decider.keyer
        self._selection = decider.selection
        self._baseline = baseline
        self._plans: dict[Node, StepPlan] = {}
        self._leaders: dict[str, StepRun] = {}

    def resolve(self, outputs: Sequence[Output]) -> list[Any]:
        """Return values from the records, if all of them would be reused.

        Raises:
            Barrier: one of them would have to run.
        """
        self._decide_traced()
        for output in outputs:
            if not self._known(output._mlpipe_node):
                raise self._stop(output._mlpipe_node)
        try:
            return [self._outputs.load(output) for output in outputs]
        except InputLost as lost:
            near = [self._outputs.runs[output._mlpipe_node] for output in outputs]
            producer = self._outputs.producer(lost.value, near)
            if producer is None:
                raise lost.error from lost
            node = producer.group.node if producer.group else producer.node
            self._plans[node] = self._plans[node]._replace(
                action="run", reasons=(Reason(lost.kind),)
            )
            raise self._stop(node) from lost

    def _stop(self, node: Node) -> Barrier:
        self.graph.stopped_at = node.name
        self.graph.complete = False
        return Barrier()

    def _known(self, node: Node) -> bool:
        """Return whether the output of a node is there; two of one key may wait for one run."""
        run = self._outputs.runs[node]
        if run.items is not None:
            return all(item.record is not None for item in run.items)
        return run.record is not None

    def plan(self, verify: bool = False) -> Plan:
        """Return what was decided about every node."""
        self._decide_traced()
        self._selection.refuse_unknown(self.graph)
        wanted = self._wanted()
        if verify:
            self._verify(wanted)
        steps = [self._plans[node] for node in self.graph if node in wanted]
        warnings = self._warnings(node for node in self.graph if node in wanted)
        items = {node.name: self._running(node) for node in self.graph}
        counted = {name: count for name, count in items.items() if count is not None}
        name, stopped_at = self.graph.name, self.graph.stopped_at
        return Plan(name, steps, stopped_at, warnings, counted, self._explain)

    def _running(self, node: Node) -> tuple[int, int] | None:
        """Return how many items of a mapped node would run, and of how many."""
        items = self._outputs.runs[node].items
        return None if items is None else (sum(bool(item.reasons) for item in items), len(items))

    def _explain(self, name: str) -> list[str]:
        """Return the story behind the decision on a node; of a mapped one, on its first item."""
        run = next(run for run in self._outputs.runs.values() if run.name == name)
        reasons: Sequence[Reason] = next(p.reasons for p in self._plans.values() if p.name == name)
        first = next((item for item in run.items or () if item.reasons), None)
        if first is not None:
            lines = explanation(first.reasons, *self._sides(first), self._outputs.store)
            told = (f"  {line}".rstrip() for line in lines)
            return [f"  {reason}" for reason in reasons] + ["", f"  {first.name}: run", *told]
        return explanation(reasons, *self._sides(run), self._outputs.store)

    def _sides(self, run: StepRun) -> tuple[Side | None, Side | None]:
        """Return a step as it was and as it is now."""
        node, store = run.node, self._outputs.store
        before = self._baseline.record(node)
        if before is None or run.manifest is None:
            return None, None

        def look_up(digest: str) -> KeptCode | None:
            known = self._keyer.codes.known(digest)
            return None if known is None else kept(known, before.manifest["code"], store.codes.read)

        facts = self._keyer.described(node.step, node.arguments)
        manifest = run.manifest._replace(described=facts)
        now = Side(manifest, look_up, lambda source: values_in(store, self._document(), source))
        return side_of_record(store, before), now

    def _document(self) -> dict[str, Any]:
        """Return what is known of outputs, in the form of the manifest of a run."""
        return {
            "nodes": [
                {
                    "name": run.name,
                    "key": None,
                    "items": None if run.items is None else len(run.items),
                    "fields": None
                    if run.record is None
                    else {name: value.to_json() for name, value in run.record.fields.items()},
                }
                for run in self._outputs.runs.values()
            ]
        }

    def _warnings(self, nodes: Iterable[Node]) -> list[str]:
        found: dict[str, None] = {}
        for node in nodes:
            code = self._keyer.codes.of(node.step, node.name).code
            found.update(dict.fromkeys(code_warnings(node.step, code)))
            found.update(dict.fromkeys(argument_warnings(node.step, node.name, node.arguments)))
        return [*found]

    def _wanted(self) -> set[Node]:
        wanted: set[Node] = set()
        stack = [node for node in self.graph if self._selection.is_target(node.name)]
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack += node.parents
        return wanted

    def _verify(self, wanted: set[Node]) -> None:
        """Look at the stored values that a run would read, and plan for what is not there."""
        for node in self.graph:
            plan = self._plans[node]
            if node not in wanted or plan.action != "reuse":
                continue
            run = self._outputs.runs[node]
            for one in (run, *(run.items or ())):
                for value in one.record.fields.values() if one.record else ():
                    problem = self._outputs.problem(value)
                    if problem is not None:
                        reasons = (Reason(problem),)
                        self._plans[node] = plan._replace(action="run", reasons=reasons)

    def _decide_traced(self) -> None:
        for node in self.graph.nodes[len(self._plans) :]:
            run = self._outputs.runs[node] = StepRun(node)
            record = self._baseline.record(node)
            action, reasons = self._decide(run)
            expected = None if record is None else record.duration_s
            if run.items is not None:
                expected = self._expected(run.items)
            self._plans[node] = StepPlan(node.name, action, reasons, compute_of(node), expected)

    def _expected(self, items: list[StepRun]) -> float | None:
        records = [self._baseline.record(item.node) for item in items if item.record is None]
        known = [record.duration_s for record in records if record is not None]
        return sum(known) if known or not records else None

    def _decide(self, run: StepRun) -> tuple[str, tuple[Reason, ...]]:
        node = run.node
        unknown = {
            parameter: source_of([each for name, each in node.inputs if name == parameter])
            for parameter, output in node.inputs
            if not self._known(output._mlpipe_node)
        }
        if node.mapped is not None:
            return self._decide_unknown(run, unknown) if unknown else self._decide_items(run)
        if unknown:
            return self._decide_unknown(run, unknown)
        return self._decide_known(run)

    def _decide_known(self, run: StepRun) -> tuple[str, tuple[Reason, ...]]:
        self._find_key(run)
        return self._decide_by_key(run)

    def _find_key(self, run: StepRun) -> None:
        group = None if run.group is None else run.group.node
        run.manifest, run.key, _ = self._decider.keyed(run.node, group, self._outputs)

    def _decide_by_key(self, run: StepRun) -> tuple[str, tuple[Reason, ...]]:
        node, manifest, key = run.node, run.manifest, run.key
        assert manifest is not None
        assert key is not None
        leader = self._leaders.setdefault(key, run) if node.step.cached else run
        if leader is not run and not self._decider.outdated(node, manifest, leader.record):
            run.record = leader.record
            return "reuse", ()
        decision, run.key, _ = self._decider.decide(node, manifest, key)
        if isinstance(decision, Reuse):
            run.record = decision.record
            return "reuse", ()
        return "run", decision.reasons

    def _decide_unknown(
        self, run: StepRun, unknown: dict[str, str]
    ) -> tuple[str, tuple[Reason, ...]]:
        """Decide as if the steps above made again what they made last time."""
        node = run.node
        options = Options(node.step.cached, self._selection.is_refreshed(node.name))
        certain = decide(None, options, 0, list)
        if isinstance(certain, Run) and (options.refresh or not options.cache):
            return "run", certain.reasons
        before = self._baseline.manifest(node)
        if before is None:
            return "run", (Reason("first run"),)
        run.manifest = assumed = self._assume(node, before, unknown)
        if node.mapped is not None:
            # Its items are not known; but what all of them share is.
            changes = self._decider.changes(node, assumed, before)
            sure = [change for change in changes if change.kind in _SHARED]
            return ("run", tuple(sure)) if sure else ("run?", _may_change(unknown))
        decision, *_ = self._decider.decide(node, assumed, assumed.key())
        if isinstance(decision, Reuse):
            return "run?", _may_change(unknown)
        return "run", decision.reasons

    def _assume(self, node: Node, before: Manifest, unknown: dict[str, str]) -> Manifest:
        varying = set(unknown) | set(node.mapped.parameters if node.mapped else ())
        known = {name: value for name, value in node.arguments.items() if name not in varying}
        manifest = self._keyer.manifest(node.step, node.name, known, self._outputs.reference)
        inputs = {**manifest.inputs, **{n: before.inputs.get(n, "") for n in varying}}
        # What owns the types of an unknown input is not known either: as it was.
        environment = {**before.environment, **manifest.environment}
        sources = {**manifest.sources, **unknown}
        places = {f"input {name}" for name in varying}
        given = {place: shown for place, shown in before.given.items() if place in places}
        return manifest._replace(
            inputs=inputs, environment=environment, sources=sources, given=given
        )

    def _decide_items(self, run: StepRun) -> tuple[str, tuple[Reason, ...]]:
        run.items = expand(run, self._outputs)
        for item in run.items:
            self._outputs.runs[item.node] = item
            self._find_key(item)
        if run.node.step.cached:  # all records in a few calls
            self._decider.look_up([item.key for item in run.items if item.key is not None])
        for item in run.items:
            _, item.reasons = self._decide_by_key(item)
        reasons = distinct(reason for item in run.items for reason in item.reasons)
        return ("run", reasons) if reasons else ("reuse", ())


_SHARED = frozenset({"code changed", "version changed", "reads changed", "parameter changed"})


def _may_change(unknown: dict[str, str]) -> tuple[Reason, ...]:
    return tuple(
        Reason("input may change", parameter, "", source) for parameter, source in unknown.items()
    )
