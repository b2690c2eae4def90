"""Versions of functions: made from code and settings, imported before they may go live, and found again for a rollback."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from penstock.compute.protocol import Code, ImportFailed, InstallFailed, NotIsolated
from penstock.domain.censor import censor_of, secrets_of
from penstock.domain.errors import Conflict, DeployFailed, NotFound
from penstock.store.protocol import Version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.compute.protocol import Blueprint, Environment
    from penstock.engine.model import Function, Plant
    from penstock.engine.reconciler import Reconciler

PREPARE_TIMEOUT: Final = 60.0
"""How long (seconds) code may take to import before its deploy is refused."""


@dataclass(frozen=True, slots=True)
class Flip:
    """Hold a version that is to go live, all versions that its function has, and what was prepared for it."""

    version: Version
    versions: Sequence[Version]
    prepared: Blueprint | None = None


BESIDE: Final = frozenset({"source", "aliases"})
"""Settings of a function that no version has: where its code comes from, and what its versions are called."""


def settings_of_version(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a function that a version of it has."""
    return {name: value for name, value in settings.items() if name not in BESIDE}


def settings_beside_versions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a function that stay as they are whatever version is live."""
    return {name: value for name, value in settings.items() if name in BESIDE}


class Versions:
    """Make and find versions. What is returned has been imported; nothing is live before it is written so."""

    def __init__(self, plant: Plant, reconciler: Reconciler) -> None:
        self._plant = plant
        self._reconciler = reconciler

    async def make(self, function: str, bundle: str, settings: Mapping[str, Any]) -> Flip:
        """Write the next version. Raises `DeployFailed`, with the traceback, if it does not import: then there is none."""
        plant = self._plant
        kept, wall = settings_of_version(settings), plant.wall()
        versions = await plant.store.versions(plant.project_id, function)
        number = versions[-1].number + 1 if versions else 1
        prepared = await self._prepare(
            Version(function, number, bundle, kept, wall, live=False), f"The code of '{function}' does not import"
        )
        version = await plant.store.add_version(plant.project_id, function, bundle, kept, wall)
        return Flip(version, [*versions, version], prepared)

    async def furnish(self, function: str, bundle: str, settings: Mapping[str, Any]) -> Environment | None:
        """Install what code asks for. It may take minutes, in which nothing else has to wait. Raises `DeployFailed`."""
        try:
            return await self._plant.compute.furnish(Code(bundle, settings.get("python")))
        except InstallFailed as error:
            raise self._not_installed(function, error) from error

    async def find(self, function: str, number: int | None) -> Flip:
        """Return an earlier version: that of a number, or else the one that the live one took over from.

        Raises as `look_up` does, and `DeployFailed` if it does not import any more.
        """
        flip = await self.look_up(function, number)
        failure = f"Version {flip.version.number} of '{function}' does not import any more"
        return replace(flip, prepared=await self._prepare(flip.version, failure))

    async def look_up(self, function: str, number: int | None) -> Flip:
        """Return an earlier version that may not import any more. Raises `NotFound`, `Conflict` if there is none before."""
        plant = self._plant
        live = plant.functions[function].live
        if live is None:
            raise Conflict(f"The function '{function}' has no code yet. Deploy it first.")
        versions = await plant.store.versions(plant.project_id, function)
        known = {version.number: version for version in versions}
        wanted = known[live.number].previous if number is None else number
        if wanted is None:
            raise Conflict(f"No version of '{function}' was live before version {live.number}. Say which one is meant.")
        if wanted == live.number:
            raise Conflict(f"Version {wanted} of '{function}' is live already.")
        if wanted not in known:
            raise NotFound(f"version of '{function}' with the number", str(wanted))
        return Flip(known[wanted], versions)

    async def revive(self, function: Function, aliases: Mapping[str, int]) -> None:
        """See that the versions that aliases come to point at still import. Raises `DeployFailed`."""
        for alias, number in aliases.items():
            if function.spec.aliases.get(alias) != number:
                failure = (
                    f"Version {number} of '{function.name}' does not import any more, and '{alias}' stays where it is"
                )
                await self._prepare(function.versions[number], failure)

    def forget(self, flip: Flip) -> None:
        """Let go of a version that does not go live after all."""
        if flip.prepared is not None:
            self._reconciler.retire(flip.prepared, {})

    async def _prepare(self, version: Version, failure: str) -> Blueprint:
        blueprint = self._reconciler.blueprint(version, {})
        try:
            await self._plant.compute.prepare(blueprint, PREPARE_TIMEOUT)
        except InstallFailed as error:
            raise self._not_installed(version.function, error) from error
        except NotIsolated as error:
            self._reconciler.retire(blueprint, {})
            raise DeployFailed(error.message) from error
        except ImportFailed as error:
            self._reconciler.retire(blueprint, {})
            censor = censor_of(secrets_of(version.settings.get("env", {})))
            stays = self._what_stays(version.function)
            said = error.message if error.message.endswith(".") else f"{error.message}."
            message, traceback = f"{failure}: {said}{stays}", error.traceback
            if censor is not None:
                message, traceback = censor.text(message), censor.text(traceback)
            raise DeployFailed(message, traceback) from None
        return blueprint

    def _not_installed(self, function: str, error: InstallFailed) -> DeployFailed:
        words = f"The packages of '{function}' cannot be installed: {error.message}{self._what_stays(function)}"
        return DeployFailed(words, error.traceback)

    def _what_stays(self, function: str) -> str:
        """Say which version goes on, whatever was refused."""
        found = self._plant.functions.get(function)
        return "" if found is None or found.live is None else f" Version {found.live.number} stays live."
