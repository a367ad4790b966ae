"""Feeds generated and damaged input to ctrldecode, and keeps what is not answered by one of its own errors; see docs/robustness.md.

python -m tools.fuzz all --seconds 3600
python -m tools.fuzz regex --cases 500 --seed 7
python -m tools.fuzz replay fuzz-findings/regex-0123abcd.json
"""
