"""The line of waiting jobs: users take turns, and each user's own jobs keep their order."""

import threading
from collections import OrderedDict, deque


class Line:
    """Ids of jobs by user; any thread may call anything."""

    def __init__(self):
        self._users: OrderedDict[str, deque[str]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, user: str, job: str) -> None:
        """Adds a job at the end of its user's."""
        with self._changed:
            self._users.setdefault(user, deque()).append(job)
            self._changed.notify()

    def take(self) -> str | None:
        """The next job, when there is one; None when the line is closed. Its user then comes after all others."""
        with self._changed:
            self._changed.wait_for(lambda: self._users or self._closed)
            if self._closed:
                return None
            user, jobs = self._users.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._users[user] = jobs
            return job

    def nexts(self, except_of: str) -> list[tuple[str, str]]:
        """Each other user with the first of their jobs, in the order in which they would be taken."""
        with self._changed:
            return [(user, jobs[0]) for user, jobs in self._users.items() if user != except_of]

    def take_next(self, user: str, job: str) -> bool:
        """Takes a job as `take` does, if it is still the first of that user's; whether it was."""
        with self._changed:
            jobs = self._users.get(user)
            if self._closed or not jobs or jobs[0] != job:
                return False
            del self._users[user]
            jobs.popleft()
            if jobs:
                self._users[user] = jobs
            return True

    def remove(self, job: str) -> bool:
        """Takes a job out of the line; whether it was there."""
        with self._changed:
            for user, jobs in self._users.items():
                if job in jobs:
                    jobs.remove(job)
                    if not jobs:
                        del self._users[user]
                    return True
            return False

    def order(self) -> list[str]:
        """All jobs as they would be taken."""
        with self._changed:
            waiting = deque(deque(jobs) for jobs in self._users.values())
        order = []
        while waiting:
            jobs = waiting.popleft()
            order.append(jobs.popleft())
            if jobs:
                waiting.append(jobs)
        return order

    def count(self, user: str | None = None) -> int:
        """How many jobs wait, of a user or of all."""
        with self._changed:
            return sum(len(jobs) for name, jobs in self._users.items() if user in (None, name))

    def close(self) -> None:
        """Lets everybody who waits in `take` go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
