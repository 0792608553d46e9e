"""QM2 in Python: plans, envelopes, claims and questions over one WebAssembly component.

    with qm2.Domain("run.db", qm2.Component("qm2-coordination-0.1.0.wasm").door("json"), config, deliver=deliver) as domain:
        domain.submit_plan(qm2.Caller(session="user:me"), plan)

See README.md beside this package.
"""

from .core import Core as Core
from .domain import Domain as Domain
from .domain import Host as Host
from .domain import wall_clock as wall_clock
from .door import Component as Component
from .door import Door as Door
from .door import Imports as Imports
from .door import Instance as Instance
from .door import InstanceLost as InstanceLost
from .form import FormError as FormError
from .machine import Machine as Machine
from .machine import Stage as Stage
from .store import BrokenChain as BrokenChain
from .store import Staged as Staged
from .store import Store as Store
from .types import *  # noqa: F401,F403
