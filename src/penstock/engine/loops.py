"""All loops of an engine, by name, so that each can get to know those it passes work on to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.engine.configuration import Configurer
    from penstock.engine.deadlines import Deadlines
    from penstock.engine.debouncer import Debouncer
    from penstock.engine.errands import Errands
    from penstock.engine.expiry import Expiry
    from penstock.engine.headroom import Headroom
    from penstock.engine.intake import Intake
    from penstock.engine.lender import Lender
    from penstock.engine.lives import Lives
    from penstock.engine.maps import Maps
    from penstock.engine.orders import Orders
    from penstock.engine.outlook import Outlook
    from penstock.engine.pools import Pools
    from penstock.engine.prewarmer import Prewarmer
    from penstock.engine.pump import Pump
    from penstock.engine.reconciler import Reconciler
    from penstock.engine.recorder import Recorder
    from penstock.engine.reserver import Reserver
    from penstock.engine.router import Router
    from penstock.engine.scaler import Scaler
    from penstock.engine.scheduler import Scheduler
    from penstock.engine.settle import Settle
    from penstock.engine.sizes import Sizes
    from penstock.engine.sleepers import Sleepers
    from penstock.engine.stragglers import Stragglers
    from penstock.engine.visits import Visits
    from penstock.engine.withdrawals import Withdrawals


@dataclass(frozen=True, slots=True)
class Loops:
    """Hold the loops of one engine."""

    configurer: Configurer
    deadlines: Deadlines
    debouncer: Debouncer
    errands: Errands
    expiry: Expiry
    headroom: Headroom
    intake: Intake
    lender: Lender
    lives: Lives
    maps: Maps
    orders: Orders
    outlook: Outlook
    pools: Pools
    prewarmer: Prewarmer
    pump: Pump
    reconciler: Reconciler
    recorder: Recorder
    reserver: Reserver
    router: Router
    scaler: Scaler
    scheduler: Scheduler
    settle: Settle
    sizes: Sizes
    stragglers: Stragglers
    sleepers: Sleepers
    visits: Visits
    withdrawals: Withdrawals
