"""Automations for pipelines that run without their author: end what was killed, tell what failed.

Knows Prefect's automations. Knows nothing of pipelines but that they are flows. Each call leaves
one automation on the server, whose name says what it is for; called again, it changes that one.

A killed process tells nobody. A worker or a serving process notices the death of a run that it
started; for all others, and where its machine died too, the signs of life stop, and that is what
`crash_silent_runs` waits for. Prefect itself sends one every three minutes, pipelines every half.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from prefect_mlpipe.reporting.watch import HEARTBEAT

CRASHED = "Crash runs that give no sign of life"
FAILED = "Tell of runs that failed"
FAILURES = ("Failed", "TimedOut", "Crashed")

_SUBJECT = "{{ flow.name }}: run {{ flow_run.name }} has ended as {{ flow_run.state.name }}"
_URL = "(flow_run | ui_url) or (flow_run.id | string)"  # a server may not know its URL
_BODY = f"{{{{ flow_run.state.message }}}}\n{{{{ {_URL} }}}}"
_PAYLOAD = (
    '{"flow": {{ flow.name | tojson }}, "run": {{ flow_run.name | tojson }},'
    ' "id": {{ flow_run.id | string | tojson }}, "state": {{ flow_run.state.name | tojson }},'
    f' "message": {{{{ flow_run.state.message | tojson }}}}, "url": {{{{ ({_URL}) | tojson }}}}}}'
)


def crash_silent_runs(
    within: timedelta = timedelta(minutes=7), flows: Sequence[str] = (), name: str = CRASHED
) -> UUID:
    """Have the server end runs as `Crashed` whose signs of life stop.

    A run that has ended stays as it is: the server lets nothing that has ended become `Crashed`.
    One that was taken for dead, and was not, goes on, and ends as what it ends as.

    Args:
        within: after how long. Plain flows need more than the three minutes between two signs of
            life of theirs (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`); for pipelines 90 seconds are
            enough. 10 seconds at least.
        flows: names of flows and pipelines; default: all.
        name: of the automation; another one for other flows.

    Returns:
        Its id.
    """
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={HEARTBEAT},
        expect={"prefect.flow-run.*"},  # another one, or any state: also one in which it waits
        for_each={"prefect.resource.id"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=_of(flows),
        threshold=1,
        within=within,
    )
    message = f"The run gave no sign of life for {within.total_seconds():.0f} s."
    action = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
    about = f"Ends runs as Crashed that give no sign of life for {within.total_seconds():.0f} s"
    return ensure(AutomationCore(name=name, description=about, trigger=trigger, actions=[action]))


def notify_on_failure(block: Block | str, flows: Sequence[str] = (), name: str = FAILED) -> UUID:
    """Have the server send a notification when a run has failed, timed out or crashed.

    Args:
        block: where to: a saved notification block of Prefect (Slack, Teams, email, ...), which
            gets two lines of text, or a `Webhook`, which gets JSON with `flow`, `run`, `id`,
            `state`, `message` and `url`; or its name, as `slack-webhook/alerts`.
        flows: names of flows and pipelines; default: all.
        name: of the automation; another one for other flows.

    Returns:
        Its id.

    Raises:
        ValueError: there is no such block, or it was not saved.
    """
    if isinstance(block, str) and block.count("/") != 1:
        raise ValueError(
            f"'{block}' names no block: write it as 'type/name', 'slack-webhook/alerts'"
        )
    block = Block.load(block) if isinstance(block, str) else block  # type: ignore[assignment]
    assert isinstance(block, Block)
    block_id = block._block_document_id
    if block_id is None:
        raise ValueError(f"{type(block).__name__} is not saved: block.save('alerts') does it")
    trigger = EventTrigger(
        posture=Posture.Reactive,
        expect={f"prefect.flow-run.{state}" for state in FAILURES},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=_of(flows),
        threshold=1,
        within=timedelta(0),
    )
    action: Any = (
        CallWebhook(block_document_id=block_id, payload=_PAYLOAD)
        if isinstance(block, Webhook)
        else SendNotification(block_document_id=block_id, subject=_SUBJECT, body=_BODY)
    )
    about = f"Tells of runs that ended as {', '.join(FAILURES)}"
    return ensure(AutomationCore(name=name, description=about, trigger=trigger, actions=[action]))


def ensure(automation: AutomationCore) -> UUID:
    """Have the server hold one automation of this name, with this content; return its id.

    One that says the same already is left alone, so that what it waits for is not forgotten.
    """
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(automation.name)
        if not there:
            return client.create_automation(automation)
        first, *others = there
        for other in others:
            client.delete_automation(other.id)
        before = AutomationCore.model_validate(first.model_dump(exclude={"id"}))
        if _content(before) != _content(automation):
            client.update_automation(first.id, automation)
        return first.id


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What it says, without the ids that each trigger draws for itself."""
    document = automation.model_dump(mode="json")
    trigger = {word: said for word, said in document["trigger"].items() if word != "id"}
    trigger = {w: sorted(s) if isinstance(s, list) else s for w, s in trigger.items()}
    return {**document, "trigger": trigger}


def _of(flows: Sequence[str]) -> ResourceSpecification:
    if not flows:
        return ResourceSpecification({})
    return ResourceSpecification(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
    )
