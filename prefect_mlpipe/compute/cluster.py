"""One open cluster: takes calls, sends them to workers, and sees to it that each comes to an end.

Knows dask's client. Knows nothing of graphs or decisions, and of Prefect only that a task run which
nobody ends must be closed.

All state belongs to one thread, which works through a queue of what is to be done: open, submit,
take in a result, look after the workers, close. Whatever waits for the network waits there or on
the client's loop, so the engine is never held up, and there is no lock. Nothing here waits without
an end: a worker, a scheduler or a connection that dies ends in an error that names the step.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from distributed import Client, KilledWorker
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from prefect_mlpipe.compute.clusters import ClusterTarget
from prefect_mlpipe.compute.offers import (
    Needs,
    Offer,
    needs_of,
    no_such_worker,
    offers_of,
    restrictions,
)
from prefect_mlpipe.compute.travel import Order, pack_call, pack_step, unpack_error
from prefect_mlpipe.compute.worker import Result, RunContext, flush, plugin_name, run_order
from prefect_mlpipe.core.code import CodeReader
from prefect_mlpipe.engine.calls import Done, InputLost
from prefect_mlpipe.errors import (
    CodeMismatch,
    ComputeError,
    ComputeUnavailable,
    MlpipeError,
    WorkerLost,
)
from prefect_mlpipe.steps import Step

from prefect_mlpipe.compute.ticket import Ticket

logger = logging.getLogger(__name__)

CONNECT_S = 30
ANSWER_S = 10  # how long the scheduler may take to say what workers there are
CLOSE_S = 20
WATCH_S = 1.0
