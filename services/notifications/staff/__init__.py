"""Staff alerts: managers and supervisors are told of leads and touches that wait for them.

Who they are and where they are reached is the directory (`directory.py`); who is told of what, when
and by which channel is policy (`policy.py`). What is heard becomes alerts (`alerts.py`), one for
each person, and is called off when somebody has acted. What is due becomes messages
(`due_alerts.py`), one for all that a person is to be told at that moment.
"""
