"""What the API says of itself holds together."""

import re

from tests.contacts.conftest import Contacts


async def test_the_document_describes_every_body_and_every_reference_leads_somewhere(
    contacts: Contacts,
) -> None:
    answer = await contacts.http.get("/openapi.json")
    made = answer.json()

    known = made["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text)) <= known.keys()
    assert "$defs" not in answer.text
    for path in ("/v1/clients", "/v1/clients/batch", "/v1/deals/batch", "/v1/leads"):
        body = made["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["type"] == "object", path
    deal = made["paths"]["/v1/deals/batch"]["post"]["requestBody"]["content"]["application/json"]
    assert "closed_at" in deal["schema"]["properties"]["items"]["items"]["properties"]
