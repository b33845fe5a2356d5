# SPDX-License-Identifier: MIT
# The names of the package as type checkers see them; at run time brood.__getattr__ makes them.
from multiprocessing import (
    AuthenticationError as AuthenticationError,
    BufferTooShort as BufferTooShort,
    Process as Process,
    ProcessError as ProcessError,
    TimeoutError as TimeoutError,
    active_children as active_children,
    allow_connection_pickling as allow_connection_pickling,
    current_process as current_process,
    freeze_support as freeze_support,
    get_all_start_methods as get_all_start_methods,
    get_logger as get_logger,
    get_start_method as get_start_method,
    log_to_stderr as log_to_stderr,
    parent_process as parent_process,
    reducer as reducer,
    set_executable as set_executable,
    set_start_method as set_start_method,
)

from . import (
    connection as connection,
    context as context,
    dummy as dummy,
    forkserver as forkserver,
    heap as heap,
    managers as managers,
    pool as pool,
    popen_fork as popen_fork,
    popen_forkserver as popen_forkserver,
    popen_spawn_posix as popen_spawn_posix,
    process as process,
    queues as queues,
    reduction as reduction,
    resource_sharer as resource_sharer,
    resource_tracker as resource_tracker,
    shared_memory as shared_memory,
    sharedctypes as sharedctypes,
    spawn as spawn,
    synchronize as synchronize,
    util as util,
)
from .context import BroodContext, _default_context
from ._arena import ArenaTicket as ArenaTicket, arena_ticket as arena_ticket, attach as attach
from ._ends import TaskTimeout as TaskTimeout
from ._errors import PoolBroken as PoolBroken, TaskError as TaskError, WorkerDied as WorkerDied
from ._arrays import array as array, empty as empty, zeros as zeros
from ._random import task_seed as task_seed
from ._share import Shared as Shared

def get_context(method: str | None = None) -> BroodContext: ...

Array = _default_context.Array
Barrier = _default_context.Barrier
BoundedSemaphore = _default_context.BoundedSemaphore
Condition = _default_context.Condition
Event = _default_context.Event
JoinableQueue = _default_context.JoinableQueue
Lock = _default_context.Lock
Manager = _default_context.Manager
Pipe = _default_context.Pipe
Pool = _default_context.Pool
Queue = _default_context.Queue
RLock = _default_context.RLock
RawArray = _default_context.RawArray
RawValue = _default_context.RawValue
Semaphore = _default_context.Semaphore
SimpleQueue = _default_context.SimpleQueue
Value = _default_context.Value
cpu_count = _default_context.cpu_count
set_forkserver_preload = _default_context.set_forkserver_preload
