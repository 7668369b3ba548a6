"""The demo: the main job on real data, played through the public doors, with its facts checked.

`make demo` starts the suite empty in sandbox time, plays three stories (purchases become segments,
leads get owners, a meeting is reminded of), shows what came out and writes it to
`.data/demo/report.json`. Nothing here touches a database: REST, webhooks and Kafka only.
"""

from deploy.local.demo.play import main

__all__ = ["main"]
