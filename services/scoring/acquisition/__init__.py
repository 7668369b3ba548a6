"""What winning a client costs and what a client brings, by channel.

A client came by the channel of their first lead and was won with their first purchase. Costs are
entered by hand or by a program, in groups.
"""
