"""Named points between two effects at which a test may let the process die.

`make chaos` kills at every one of them, many times, because random kills seldom hit the narrow
moments that matter. Without `BAZA_FAILPOINTS` in the environment, as in production, `reach` is an
empty function. With it, a point is armed by a file `armed/<point>` in that folder: the first
process that reaches the point takes the file, writes itself into `crashes` and dies as by kill -9.
"""

import os
import signal

POINTS = (
    "claim_timeout.lapsed",  # offers ended, their leads not offered again
    "consumer.applied",  # effects and positions committed, nobody knows
    "consumer.told",  # offsets shown to the group's tools
    "create.committed",  # card, event and key stored in one statement, nobody answered
    "dead_letter.laid_aside",  # poison stored, uncommitted
    "dead_letter.replayed",  # effects of a replay and its settling, uncommitted
    "form.taken_in",  # lead of a webhook made, webhook not settled
    "idempotency.claimed",  # key taken, no effect yet
    "idempotency.settled",  # answer stored with its effect, uncommitted
    "inbox.handled",  # ids, effects and events written, uncommitted
    "inbox.remembered",  # ids written, no effects yet
    "outbox.added",  # event written beside its state, uncommitted
    "relay.acknowledged",  # the broker has the events, the rows stand
    "relay.deleted",  # rows deleted
    "relay.read",  # rows read, nothing sent
    "request.committed",  # effect committed, nobody answered
    "request.done",  # effect written, uncommitted
    "sending.sent",  # a provider took the message over, nothing written down
    "sending.taken",  # message leased, not sent
    "timer.committed",  # due rows fired
    "timer.due",  # due rows known, not claimed
    "timer.fired",  # due rows claimed and changed, uncommitted
    "transaction.committed",  # a bare transaction committed
    "transaction.done",  # a bare transaction written, uncommitted
    "webhook.stored",  # request of outside stored, uncommitted
)

FOLDER = os.environ.get("BAZA_FAILPOINTS", "")


def _pass(point: str) -> None:
    """Production: nothing happens."""


def _die_if_armed(point: str) -> None:
    try:
        os.unlink(os.path.join(FOLDER, "armed", point))
    except FileNotFoundError:
        return
    line = f"{point} {os.getpid()}\n".encode()
    file = os.open(os.path.join(FOLDER, "crashes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line)  # one write of a short line is whole, whoever else writes
    os.kill(os.getpid(), signal.SIGKILL)


reach = _die_if_armed if FOLDER else _pass
