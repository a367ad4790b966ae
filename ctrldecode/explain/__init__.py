"""Why a text came about as it did, or cannot: a record of every token, and a page of HTML that shows it.

`trace` records, `to_json` and `from_json` keep, `page` shows.
"""

from ctrldecode.explain._verdict import verdict
from ctrldecode.explain.page import page
from ctrldecode.explain.record import Trace, from_json, to_json
from ctrldecode.explain.trace import trace

__all__ = ["Trace", "from_json", "page", "to_json", "trace", "verdict"]
