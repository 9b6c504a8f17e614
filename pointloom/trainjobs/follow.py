"""Start a TrainJob or find it started, show what its first process prints, and wait for its end."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pointloom.trainjobs.api import ApiError, KubernetesApi
from pointloom.trainjobs.manifest import GROUP, NODE, VERSION

logger = logging.getLogger(__name__)

POLL_S = 10.0
LONGEST_DELETION_S = 600.0
LABEL_JOB = "jobset.sigs.k8s.io/jobset-name"
LABEL_INDEX = "batch.kubernetes.io/job-completion-index"
EXIT_USER_ERROR, EXIT_PREEMPTED = 2, 75
Outcome = Literal["Complete", "Failed"]


class TrainJob:
    """One TrainJob of a cluster.

    Args:
        api: The cluster.
        manifest: What is to run; its name says whether a job that exists is this one.
        show: Called with every line that the first process prints.
        poll_s: How often to ask for the state.
    """

    def __init__(
        self, api: KubernetesApi, manifest: Mapping[str, Any], *, show: Callable[[str], None], poll_s: float = POLL_S
    ) -> None:
        self.api = api
        self.manifest = manifest
        self.name = str(manifest["metadata"]["name"])
        self._show = show
        self._poll_s = poll_s
        self._jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{api.namespace}/trainjobs"
        self._pods = f"/api/v1/namespaces/{api.namespace}/pods"
        self._last_line = ""

    def run(self) -> None:
        """Bring the job to its end; it is deleted then, and when this process is asked to end.

        Raises:
            SystemExit: The job has failed: with 2 where a retry cannot help, 75 where it was asked to end, else 1.
            ApiError: The API server refuses, or does not answer for long; the job is left alone, and the next attempt
                finds it.
        """
        try:
            self.start()
            outcome = self._follow()
        except (KeyboardInterrupt, SystemExit):
            logger.warning("asked to end: TrainJob %s is deleted", self.name)
            self.delete()
            raise
        if outcome == "Complete":
            return
        code, reason = self._exit_code(), self._reason()
        self.delete()
        logger.error("TrainJob %s has failed (%s); its first process printed the lines above", self.name, reason)
        raise SystemExit(code)

    def start(self) -> None:
        """Create the job, or adopt the one that an earlier attempt has started; a failed one is replaced.

        Raises:
            ApiError: The server refuses, or a job that was deleted does not go away.
        """
        deadline = time.monotonic() + LONGEST_DELETION_S
        while time.monotonic() < deadline:
            found = self._read()
            if found is None:
                try:
                    self.api.call("POST", self._jobs, body=self.manifest)
                except ApiError as error:
                    if error.status != 409:
                        raise
                    continue  # it is there after all: the answer to an earlier request was lost
                logger.info("TrainJob %s started", self.name)
                return
            leaving = "deletionTimestamp" in found["metadata"]
            if not leaving and outcome_of(found) != "Failed":
                logger.info("TrainJob %s is already there: following it", self.name)
                return
            if not leaving:
                self.delete()
            time.sleep(self._poll_s)
        raise ApiError(
            f"TrainJob {self.name} was deleted {LONGEST_DELETION_S:.0f} s ago and is still there", status=None
        )

    def delete(self) -> None:
        """Delete the job with its pods; nothing happens where there is none."""
        try:
            self.api.call("DELETE", f"{self._jobs}/{self.name}", query={"propagationPolicy": "Foreground"})
        except ApiError as error:
            if error.status != 404:
                logger.warning("TrainJob %s could not be deleted: %s", self.name, error)

    def _read(self) -> dict[str, Any] | None:
        try:
            return self.api.call("GET", f"{self._jobs}/{self.name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _follow(self) -> Outcome:
        """Show the log until the job has ended.

        Raises:
            SystemExit: Somebody else has deleted the job; with code 75, because a retry starts it again.
        """
        while True:
            found = self._read()
            if found is None:
                logger.error("TrainJob %s was deleted by somebody else", self.name)
                raise SystemExit(EXIT_PREEMPTED)
            outcome = outcome_of(found)
            started = time.monotonic()
            self._show_log(to_the_end=outcome is not None)
            if outcome is not None:
                return outcome
            time.sleep(max(0.0, started + self._poll_s - time.monotonic()))

    def _show_log(self, *, to_the_end: bool) -> None:
        """Show what the first process has printed since the last time; broken connections lose and repeat nothing."""
        pods = [pod for pod in self._list_pods() if pod["metadata"].get("labels", {}).get(LABEL_INDEX) == "0"]
        if not pods:
            return
        pod = max(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))
        query = {"container": NODE, "timestamps": "true", "follow": "false" if to_the_end else "true"}
        if self._last_line:
            query["sinceTime"] = self._last_line[:19] + "Z"
        deadline = time.monotonic() + self._poll_s
        try:
            for line in self.api.lines(f"{self._pods}/{pod['metadata']['name']}/log", query=query):
                stamp, _, text = line.partition(" ")
                if comparable(stamp) > self._last_line:
                    self._last_line = comparable(stamp)
                    self._show(text)
                if time.monotonic() > deadline and not to_the_end:
                    return
        except ApiError as error:
            if error.status not in {400, 404}:  # not started yet, or gone already
                logger.warning("no log: %s", error)

    def _list_pods(self) -> list[dict[str, Any]]:
        found = self.api.call("GET", self._pods, query={"labelSelector": f"{LABEL_JOB}={self.name}"})
        return list(found.get("items", []))

    def _exit_code(self) -> int:
        """Return the code that says most about a failed job: wrong input before a request to end before the rest."""
        codes = {code for pod in self._list_pods() for code in exit_codes(pod)}
        return next((code for code in (EXIT_USER_ERROR, EXIT_PREEMPTED) if code in codes), 1)

    def _reason(self) -> str:
        found = self._read() or {}
        condition = next((each for each in conditions(found) if each["type"] == "Failed"), {})
        return (
            ": ".join(str(condition[key]) for key in ("reason", "message") if condition.get(key)) or "no reason given"
        )


def outcome_of(job: Mapping[str, Any]) -> Outcome | None:
    """Return how a job has ended, None while it has not."""
    ended: tuple[Outcome, ...] = ("Failed", "Complete")
    held = {each["type"] for each in conditions(job) if each["status"] == "True"}
    return next((kind for kind in ended if kind in held), None)


def conditions(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what Kubernetes says about a job."""
    return list((job.get("status") or {}).get("conditions") or [])


def exit_codes(pod: Mapping[str, Any]) -> Iterator[int]:
    """Yield the exit codes of a pod's containers that have ended with an error."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            code = (state.get("terminated") or {}).get("exitCode", 0)
            if code:
                yield int(code)


def comparable(stamp: str) -> str:
    """Return a log line's time (RFC 3339, UTC, any number of decimals) so that texts are in order of time."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        datetime.strptime(seconds, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f"{seconds}.{fraction:0<9}"
