"""Everything that `prefect_mlpipe` raises on purpose.

    MlpipeError
    ├── AuthoringError            the code of a step or a pipeline is not right
    │   ├── InvalidStep             refused at decoration, or a call that does not fit the signature
    │   ├── InvalidPipeline         refused at decoration, or an option that a pipeline cannot take
    │   ├── TypeClash               one step's output can never be what the next one declares
    │   ├── PipelineCircle          a pipeline that reaches itself
    │   ├── NameClash               two different functions under one name in one group
    │   └── UnresolvedOutput        an output was used as a value while the body was traced
    ├── InputError                what was passed in is not right
    │   ├── InvalidParameters       wrong type or unknown name, refused before anything runs
    │   ├── PipelineNotFound        a path or module leads to no pipeline
    │   ├── UnstableInput           an input has no content that can be digested
    │   ├── UnstableCode            the code reaches a global that has no content
    │   ├── MissingFile             a path that does not exist
    │   └── InputChanged            a file changed while a step was reading it
    ├── OutputError               what a step returned is not right
    │   ├── UnstorableOutput        it cannot be stored and read back as what it was
    │   └── OutputMismatch          it is not what the step declares (fields, lengths)
    ├── StoreError                the store is not right
    │   ├── StoreUnavailable        it cannot be read or written
    │   ├── ValueMissing            a stored value is gone
    │   └── ValueDamaged            a stored value does not match its checksum
    ├── ComputeError              a place where steps run is not right
    │   ├── NoSuchCompute           a step names a compute that nobody defined
    │   ├── InvalidCompute          the settings say something of a compute that it cannot be
    │   ├── ComputeUnavailable      it cannot be started or reached
    │   ├── StoreNotShared          its workers cannot see the store
    │   ├── NoSuchWorker            no worker has what a step needs
    │   ├── NoDevice                a value lives on a GPU, and cannot be brought to one here
    │   ├── WorkerLost              a worker or the scheduler died with a step on it
    │   ├── Unshippable             a step's code or arguments cannot be sent to a worker
    │   ├── CodeMismatch            a worker would run other code than that of the key
    │   └── EnvironmentMismatch     a worker has other versions than those of the key
    ├── VersionError              a frozen version is not right
    │   ├── CannotFreeze            the code of a pipeline cannot be made a version
    │   └── VersionNotFound         no such version in this store
    └── RunError                  a run could not do what it was asked
        ├── StepFailed              stands for an exception that could not travel
        ├── StepTimedOut            a step ran longer than its `timeout_seconds`
        ├── RunCancelled            the run was cancelled
        ├── RunNotFound             no such run in this store
        ├── CannotReplay            what a run was made from has changed, or was not kept
        └── PrefectUnavailable      the Prefect API does not answer

Each message has three parts: a sentence that names the step and the argument, the facts, and what
to do. Knows nothing of how they are raised.
"""

from __future__ import annotations

from collections.abc import Mapping


class MlpipeError(Exception):
    """The root of the tree.

    Args:
        sentence: what is wrong, with the names of the step and the argument.
        facts: what was seen, printed as an aligned list.
        advice: what to do about it.
    """

    def __init__(
        self, sentence: str, facts: Mapping[str, object] | None = None, advice: str = ""
    ) -> None:
        self.sentence = sentence
        self.facts = dict(facts or {})
        self.advice = advice
        super().__init__(sentence)

    def __str__(self) -> str:
        width = max((len(name) for name in self.facts), default=0)
        facts = [f"    {name:<{width}}  {value}" for name, value in self.facts.items()]
        return "\n".join([self.sentence, *facts, *([self.advice] if self.advice else [])])

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.sentence, self.facts, self.advice))


class AuthoringError(MlpipeError):
    """The code of a step or a pipeline is not right."""


class InvalidStep(AuthoringError):
    """A step was refused at decoration, or called with arguments that do not fit."""


class InvalidPipeline(AuthoringError):
    """A pipeline was refused at decoration, or given an option that it cannot take."""


class TypeClash(AuthoringError):
    """The output of one step can never be what the next one declares."""


class PipelineCircle(AuthoringError):
    """A pipeline reaches itself."""


class NameClash(AuthoringError):
    """Two different functions stand under one name in one group."""


class UnresolvedOutput(AuthoringError, TypeError):
    """An output was used as a value while the body was traced."""


class InputError(MlpipeError):
    """What was passed in is not right."""


class InvalidParameters(InputError):
    """A parameter has a wrong type or an unknown name; nothing ran."""


class PipelineNotFound(InputError, LookupError):
    """A path or module that leads to no pipeline."""


class UnstableInput(InputError):
    """An input has no content that can be digested."""


class UnstableCode(InputError):
    """The code of a step reaches a global that has no content."""


class MissingFile(InputError, FileNotFoundError):
    """A path that does not exist."""


class InputChanged(InputError):
    """A file changed while a step was reading it; the step left no record."""


class OutputError(MlpipeError):
    """What a step returned is not right."""


class UnstorableOutput(OutputError):
    """A returned value cannot be stored and read back as what it was."""


class OutputMismatch(OutputError):
    """A returned value is not what the step declares."""


class StoreError(MlpipeError):
    """The store is not right."""


class StoreUnavailable(StoreError):
    """The store cannot be read or written."""


class ValueMissing(StoreError):
    """A stored value is gone; its step runs again when the value is needed."""


class ValueDamaged(StoreError):
    """A stored value does not match its checksum; its step runs again."""


class ComputeError(MlpipeError):
    """A place where steps run is not right."""


class NoSuchCompute(ComputeError):
    """A step names a compute that nobody defined."""


class InvalidCompute(ComputeError):
    """The settings say something of a compute that it cannot be."""


class ComputeUnavailable(ComputeError):
    """A compute cannot be started or reached."""


class StoreNotShared(ComputeError):
    """The workers of a compute cannot see the store; nothing ran."""


class NoSuchWorker(ComputeError):
    """No worker has what a step needs; the step did not run."""


class NoDevice(ComputeError):
    """A stored value lives on a GPU, and cannot be brought to one where it is needed."""


class WorkerLost(ComputeError):
    """A worker, or the scheduler of its cluster, died with a step on it."""


class Unshippable(ComputeError):
    """The code or the arguments of a step cannot be sent to a worker."""


class CodeMismatch(ComputeError):
    """A worker would run other code than that of the key; nothing ran, nothing is recorded."""


class EnvironmentMismatch(ComputeError):
    """A worker has other versions than those of the key; nothing ran, nothing is recorded."""


class VersionError(MlpipeError):
    """A frozen version of a pipeline is not right."""


class CannotFreeze(VersionError):
    """The code of a pipeline cannot be made a version; nothing was deployed."""


class VersionNotFound(VersionError, LookupError):
    """There is no such version of the pipeline in this store."""


class RunError(MlpipeError):
    """A run could not do what it was asked."""


class StepFailed(RunError):
    """Stands for the exception of a step that could not travel: type, message, traceback."""


class StepTimedOut(RunError, TimeoutError):
    """A step ran longer than its `timeout_seconds`."""


class RunCancelled(RunError):
    """The run was cancelled."""


class RunNotFound(RunError, LookupError):
    """There is no such run in this store."""


class CannotReplay(RunError):
    """What a run was made from has changed or was not kept; nothing ran."""


class PrefectUnavailable(RunError):
    """The Prefect API does not answer."""
