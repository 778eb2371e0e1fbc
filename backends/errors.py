"""The errors a user can cause or meet, in one tree; the command line prints them as one line.

    KaarelBetError
    ├── SettingsError (ValueError)        a setting, flag or name that does not exist or does not fit
    ├── DataError (ValueError)            a data file or record that can't be used
    ├── ModelError (LookupError)          a model that can't be found or loaded
    ├── UnsupportedError (NotImplementedError)  asked of a backend that does not have the capability
    ├── RunDirectoryError (ValueError)    a run directory that can't be used for this run
    ├── DeviceMemoryError (MemoryError)   one example alone does not fit the device
    ├── TrainingError (RuntimeError)      a training in a process of its own that ended without a model
    ├── ExecutorError (RuntimeError)      machines that can't be reached, or a task that died too often
    └── ServiceError (ConnectionError)    a service that can't be reached, refuses, or fails a job
        └── RefusedError                  one that will not answer what some queries say

Each is also its closest kin in the standard library, so that library callers can catch either.
"""

from collections.abc import Mapping


class KaarelBetError(Exception):
    """Ends a command with one actionable line and exit code 2; never shown as a traceback."""


class SettingsError(KaarelBetError, ValueError):
    """A setting, flag or name that does not exist or does not fit."""


class DataError(KaarelBetError, ValueError):
    """A data file or record that can't be used; the message names the file and line."""


class ModelError(KaarelBetError, LookupError):
    """A model that can't be found or loaded."""


class UnsupportedError(KaarelBetError, NotImplementedError):
    """Something asked of a backend that lacks the capability for it."""


class RunDirectoryError(KaarelBetError, ValueError):
    """A run directory that can't be used for this run."""


class DeviceMemoryError(KaarelBetError, MemoryError):
    """A single example or query does not fit the device's memory."""


class TrainingError(KaarelBetError, RuntimeError):
    """A training in a process of its own that ended without a model; the message says why."""


class ExecutorError(KaarelBetError, RuntimeError):
    """Other machines that can't be reached, or a task that died there as often as it may."""


class ServiceError(KaarelBetError, ConnectionError):
    """A service that can't be reached, refuses a request, or fails a job."""


class RefusedError(ServiceError):
    """Queries whose content a service will not answer; the others have been answered.

    `refused` has the service's words of each: query id -> reason.
    """

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)
        query_id, reason = next(iter(self.refused.items()))
        others = f"; {len(self.refused)} queries were refused" if len(self.refused) > 1 else ""
        super().__init__(f"query '{query_id}': {reason}{others}")
