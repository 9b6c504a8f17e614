"""What kinds of rooms there are, and what goes where in each."""

from __future__ import annotations

import math
from collections.abc import Callable

from pointloom.data.synthetic import Draw
from pointloom.data.synthetic_rooms.plan import Placed, Plan
from pointloom.data.synthetic_rooms.things import CARRIERS, Thing

SMALL = ("mug", "bottle", "bowl", "vase", "plant")
EXTRAS = {"chair": 4, "cabinet": 3, "bookshelf": 2, "desk": 1, "sofa": 1, "bench": 1, "stool": 1}
"""What may stand in any room but a bathroom, and how often."""
LOW_ENOUGH = 1.3  # metres; nothing is put on higher tops
TABLE_LAMPS = ("table lamp", "reading lamp")
FLOOR_LAMPS = ("floor lamp", "arc lamp")


def living_room(plan: Plan) -> None:
    """Furnish with a sofa, a low table before it, seats, a television and shelves."""
    draw = plan.draw
    sofa = plan.against_wall(plan.thing("sofa", "loveseat", "sofa", "couch"))
    low = plan.before(sofa, plan.thing("table", "coffee table"), gap=(0.3, 0.5), facing=False)
    plan.around(low, plan.thing("chair", "armchair", "rocking chair", "chair"), draw.whole(1, 3))
    if sofa and draw.chance(0.5):
        plan.beside(sofa, plan.thing("table", "side table"), draw.choose((-1, 1)))
    stand = plan.against_wall(plan.thing("cabinet", "sideboard"))
    plan.on(stand, plan.thing("monitor", "television", "flat monitor", "CRT monitor"), turn=0.0)
    for _ in range(draw.whole(0, 2)):
        plan.against_wall(plan.thing("bookshelf"))
    if draw.chance(0.6):
        plan.against_wall(plan.thing("sofa", "armchair", "loveseat"))


def bedroom(plan: Plan) -> None:
    """Furnish with one or two beds, nightstands, a wardrobe and perhaps a desk."""
    draw = plan.draw
    for _ in range(draw.choose((1, 2), 3, 1)):
        bed = plan.against_wall(plan.thing("bed", largest=(2.3, 2.5, plan.height)))
        for side in (-1, 1):
            stand = plan.beside(bed, plan.thing("cabinet", "nightstand"), side)
            plan.on(stand, plan.thing("lamp", *TABLE_LAMPS))
    for _ in range(draw.whole(1, 2)):
        plan.against_wall(plan.thing("cabinet", "wardrobe", "chest of drawers", "display cabinet"))
    if draw.chance(0.6):
        _workplace(plan)
    if draw.chance(0.4):
        plan.against_wall(plan.thing("chair"))
    if draw.chance(0.4):
        plan.against_wall(plan.thing("bookshelf"))


def office(plan: Plan) -> None:
    """Furnish with desks, a chair at each, screens, shelves and cabinets."""
    draw = plan.draw
    for _ in range(draw.whole(1, 4)):
        _workplace(plan)
    for noun in ("bookshelf", "cabinet", "bookshelf"):
        if draw.chance(0.7):
            plan.against_wall(plan.thing(noun))
    if draw.chance(0.4):
        _dinner(plan, plan.thing("table", "bistro table", "coffee table"), 3)


def dining_room(plan: Plan) -> None:
    """Furnish with one large table, chairs around it and sideboards."""
    _dinner(plan, plan.thing("table", "dining table"), plan.draw.whole(3, 8))
    for _ in range(plan.draw.whole(1, 2)):
        plan.against_wall(plan.thing("cabinet", "sideboard", "display cabinet", "cabinet"))
    if plan.draw.chance(0.5):
        plan.against_wall(plan.thing("table", "console table"))
    if plan.draw.chance(0.4):
        plan.against_wall(plan.thing("bookshelf"))


def kitchen(plan: Plan) -> None:
    """Furnish with counters, a refrigerator, a sink and a table."""
    draw = plan.draw
    counter = plan.against_wall(plan.thing("counter"), gap=0.02)
    if counter:
        side = draw.choose((-1, 1))
        fridge = plan.beside(counter, plan.thing("refrigerator"), side)
        if not fridge:
            plan.against_wall(plan.thing("refrigerator"))
        if not plan.beside(counter, plan.thing("sink"), -side):
            plan.against_wall(plan.thing("sink"))
    if draw.chance(0.5):
        plan.against_wall(plan.thing("counter"), gap=0.02)
    _dinner(plan, plan.thing("table", "dining table", "bistro table"), draw.whole(2, 6))
    plan.against_wall(plan.thing("cabinet"))
    for _ in range(draw.whole(0, 2)):
        plan.anywhere(plan.thing("stool"))


def bathroom(plan: Plan) -> None:
    """Furnish with a bathtub behind a curtain, a toilet, sinks and a cabinet."""
    draw = plan.draw
    tub = plan.against_wall(plan.thing("bathtub"), gap=0.02)
    if draw.chance(0.8):
        plan.before(tub, plan.thing("shower curtain"), gap=(0.02, 0.04), facing=False)
    plan.against_wall(plan.thing("toilet"), gap=0.01)
    for _ in range(draw.whole(1, 2)):
        plan.against_wall(plan.thing("sink"), gap=0.01)
    plan.against_wall(plan.thing("cabinet"))
    if draw.chance(0.5):
        plan.anywhere(plan.thing("stool"))


def cafe(plan: Plan) -> None:
    """Furnish with several tables, chairs around each, benches and a counter."""
    draw = plan.draw
    plan.against_wall(plan.thing("counter"), gap=0.02)
    for _ in range(draw.whole(2, 4)):
        _dinner(plan, plan.thing("table", "bistro table", "dining table"), draw.whole(2, 4))
    if draw.chance(0.6):
        plan.against_wall(plan.thing("bench"))
    if draw.chance(0.5):
        plan.against_wall(plan.thing("bookshelf"))


def _dinner(plan: Plan, table: Thing | None, num: int) -> None:
    """Place a table with seats of one kind around it."""
    plan.around(plan.anywhere(table, away=1.0), plan.thing(plan.draw.choose(("chair", "stool"), 5, 1)), num)


def _workplace(plan: Plan) -> None:
    desk = plan.against_wall(plan.thing("desk"))
    plan.on(desk, plan.thing("monitor"), turn=plan.draw.between(-0.2, 0.2))
    plan.before(desk, plan.thing("chair"), gap=(0.02, 0.3), facing=True)


KINDS: dict[str, tuple[Callable[[Plan], None], tuple[float, float]]] = {
    "living room": (living_room, (3.5, 5.2)),
    "bedroom": (bedroom, (3.0, 4.6)),
    "office": (office, (3.0, 5.0)),
    "dining room": (dining_room, (3.2, 5.0)),
    "kitchen": (kitchen, (2.9, 4.5)),
    "bathroom": (bathroom, (2.2, 3.2)),
    "cafe": (cafe, (4.2, 6.2)),
}
"""Kind of room -> how it is furnished and from and to which length its walls are."""


def furnished(kind: str, draw: Draw, *, clutter: bool) -> Plan:
    """Draw a room of a kind with its door, windows, furniture and, if wanted, small things."""
    furnish, lengths = KINDS[kind]
    plan = Plan(draw, width=draw.between(*lengths), depth=draw.between(*lengths), height=draw.between(2.5, 3.0))
    _openings(plan)
    furnish(plan)
    for _ in range(draw.whole(1, 4) if kind != "bathroom" else 0):
        plan.against_wall(plan.thing(draw.choose(list(EXTRAS), *EXTRAS.values())))
    for _ in range(draw.whole(0, 3)):
        plan.against_wall(plan.thing("picture"), gap=0.0, z=draw.between(1.2, 1.6))
    if draw.chance(0.5):
        plan.against_wall(plan.thing("lamp", *FLOOR_LAMPS))
    if draw.chance(0.5):
        plan.against_wall(plan.thing("plant"))
    if clutter:
        _clutter(plan)
    return plan


def _openings(plan: Plan) -> None:
    """Place a door with room to open it, and windows with or without curtains in other walls."""
    draw = plan.draw
    wall = draw.whole(0, 3)
    door = None
    while door is None:
        door = plan.against_wall(plan.thing("door"), walls=(wall,), gap=0.0)
    width = float(door.thing.size[0])
    plan.keep_free((*door.at(0, -0.55), 1.0), (width, 0.9, 2.0), door.heading)
    for _ in range(draw.choose((0, 1, 2, 3), 1, 4, 3, 1)):
        window = plan.against_wall(
            plan.thing("window"), walls=[w for w in range(4) if w != wall], gap=0.0, z=draw.between(0.75, 1.0)
        )
        if window and draw.chance(0.5):
            _curtains(plan, window)


def _curtains(plan: Plan, window: Placed) -> None:
    curtain = plan.thing("curtain", largest=(2.0, 0.2, plan.height - 0.1))
    if curtain is None:
        return
    high = float(window.center[2] + window.thing.size[2] / 2) + 0.1
    z = min(max(0.03, high - float(curtain.size[2])), plan.height - float(curtain.size[2]) - 0.02)
    reach = float(window.thing.size[0] + curtain.size[0]) / 2 + 0.02
    for side in (-1, 1):
        y = float(window.thing.size[1] - curtain.size[1]) / 2 - 0.01
        plan.put(curtain, *window.at(side * reach, y), z=z, heading=window.heading)


def _clutter(plan: Plan) -> None:
    """Put small things on all tops and a few things on the floor."""
    draw = plan.draw
    carriers = [item for item in plan.placed if item.thing.noun in CARRIERS and item.thing.size[2] < LOW_ENOUGH]
    for carrier in carriers:
        for _ in range(draw.whole(0, 4)):
            plan.on(carrier, plan.thing(draw.choose(SMALL), largest=(0.5, 0.5, 0.6)))
        if draw.chance(0.2):
            plan.on(carrier, plan.thing("lamp", *TABLE_LAMPS), turn=draw.between(0, 2 * math.pi))
    for _ in range(draw.whole(0, 3)):
        plan.anywhere(plan.thing(draw.choose(("vase", "plant", "stool", "chair"))))
