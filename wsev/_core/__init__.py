"""The compiled core: what runs per frame, per message, per delivery, or per connection and tick.

Private whole: its border is tested by ``tests/test_layers.py``.  README.md in this folder draws the data path.
"""
