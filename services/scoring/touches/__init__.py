"""Touches: when a client is to be spoken with, who does it, and whether it was done in time.

Every scored client has a plan with the working day of the next touch (`planning.py`). The clock
says when that day begins and when it is over (`touch_clock.py`). Managers take the clients whose
day has come one after another (`queue.py`, `leasing.py`), within the part of the day that is meant
for it (`budget.py`).
"""
