"""Keeps each client's segment in an SQLite file. Kill it and start it again at any moment."""

import json
import sqlite3
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

settings = {"group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "error"}
consumer = Consumer({"bootstrap.servers": sys.argv[1], "enable.partition.eof": True} | settings)
db = sqlite3.connect(sys.argv[2])
db.execute("CREATE TABLE IF NOT EXISTS client (id PRIMARY KEY, seq, segment)")
db.execute("CREATE TABLE IF NOT EXISTS place (part PRIMARY KEY, next)")
db.execute("DELETE FROM client WHERE NOT EXISTS (SELECT * FROM place)")  # started from nothing
kept = dict(db.execute("SELECT part, next FROM place"))
parts = consumer.list_topics("segments").topics["segments"].partitions
begin = dict.fromkeys(parts, OFFSET_BEGINNING)
for topic, places in {"segments.current": {} if kept else begin, "segments": begin | kept}.items():
    consumer.assign([TopicPartition(topic, *place) for place in places.items()])
    unread = set(places)  # partitions not yet read to their end
    while unread or topic == "segments":
        for record in consumer.consume(1000, timeout=0.2):
            if record.error():
                if record.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(record.error())
                unread.discard(record.partition())
                continue
            client, change = record.key().decode(), json.loads(record.value() or "null")
            seq, segment = (change["seq"], change["new_segment"]) if change else (2**62, None)
            found = db.execute("SELECT seq FROM client WHERE id = ?", [client]).fetchone()
            known = found[0] if found else 0
            if seq > known:
                db.execute("REPLACE INTO client VALUES (?, ?, ?)", [client, seq, segment])
            if topic == "segments":
                place = [record.partition(), record.offset() + 1]
                db.execute("REPLACE INTO place VALUES (?, ?)", place)
                if change and seq != known + 1:
                    print("gap" if seq > known else "repeat", client, seq, flush=True)
        if topic == "segments":
            db.commit()  # the table and how far it has come, or neither
