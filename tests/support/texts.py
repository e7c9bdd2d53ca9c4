"""Short Korean reviews of two kinds."""

from __future__ import annotations

POSITIVE = ["정말 재미있다", "최고의 영화다", "감동적이고 좋다", "또 보고 싶다", "배우 연기가 훌륭하다"]
NEGATIVE = ["너무 지루하다", "최악의 영화다", "돈이 아깝다", "보다가 잤다", "연기가 형편없다"]
