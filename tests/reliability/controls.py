"""stub"""


async def run_all(field, say):
    return {}
