"""What people write is found and sorted, in whatever script: in names, descriptions and comments, and in lists that
stay current.

Why a table of words: what a word is, and which letters are taken for the same, is a matter of each script, and whoever
reads a line of it can judge it without knowing how a search works.
"""

from typing import Any, NamedTuple

import pytest

from tests.api.asking import create, listed, names, pages
from tests.support.websocket import WebSocket


class Script(NamedTuple):
    """A text, searches that find it, and searches that do not."""

    text: str
    found: list[str]
    missed: list[str]


SCRIPTS = {
    "Han": Script(
        "我们明天讨论东京项目的预算",
        ["东京", "预算", "项目的预算", "算", "讨论 我们", "我们明天讨论东京项目的预算"],
        ["京东", "北京", "们我", "预项"],
    ),
    "kana and kanji": Script(
        "会議の準備をする。ガイドを読む",
        ["準備", "準備を", "会議", "する", "備", "ガイド", "ｶﾞｲﾄﾞ", "ガイドを読む"],
        ["備準", "カイト", "会の議", "がいど"],
    ),
    "Hangul": Script(
        "프로젝트 회의자료를 준비하세요",
        ["회의", "자료", "의자", "준비", "하세요", "젝트", "자료를 프로젝트", "료"],
        ["료자", "회자", "계획"],
    ),
    "Hangul, decomposed": Script("\u1112\u116c\u110b\u1174\u1105\u1169\u11a8", ["회의록", "의록", "록"], ["록회"]),
    "Thai": Script("ประชุมทีมเรื่องข้าวพรุ่งนี้", ["ทีม", "ประชุม", "เรื่อง", "พรุ่งนี้", "ข้าว", "ม"], ["ข่าว", "ขาว", "มทีป"]),
    "Lao": Script("ປະຊຸມທີມງານມື້ອື່ນ", ["ທີມ", "ປະຊຸມ", "ມື້ອື່ນ", "ງານ"], ["ເງິນ", "ມທີປ"]),
    "Khmer": Script("ប្រជុំក្រុមថ្ងៃស្អែក", ["ក្រុម", "ប្រជុំ", "ស្អែក", "ថ្ងៃ"], ["ការងារ", "មក្រុប"]),
    "Myanmar": Script("မနက်ဖြန်အစည်းအဝေး", ["အစည်းအဝေး", "မနက်ဖြန်", "ဖြန်"], ["ကျောင်း", "ဝေးစည်း"]),
    "Arabic": Script(
        "اِجْتِمَاعُ الفريق مـــع أحمد في المدرسة ١٥",
        ["اجتماع", "الفريق", "مع", "احمد", "أحمد", "المدرسه", "15"],
        ["محمد", "ريق", "16"],
    ),
    "Persian": Script("کتاب‌های علی در خانه ۲۵", ["كتاب", "کتابهای", "کتاب‌های", "على", "25"], ["کتابی", "52"]),
    "Hebrew": Script("פְּגִישָׁה עִם הַצֶּוֶת", ["פגישה", "הצוות"[:2], "עם", "פְּגִישָׁה"], ["גישה", "צוות"]),
    "Vietnamese": Script(
        "Họp nhóm ở đường Nguyễn Huệ", ["hop nhom", "duong", "Đường", "NGUYEN", "huệ"], ["hanoi", "uong"]
    ),
    "Polish": Script("Zażółć gęślą jaźń w Łodzi", ["zazolc", "GESLA", "jazn", "lodzi", "Łodz"], ["odzi", "lodza"]),
    "Nordic": Script(
        "Møde på Ærø, bjørn og þing í Ísland, œuvre",
        ["mode", "møde", "aero", "bjorn", "thing", "island", "oeuvre"],
        ["moede", "aro"],
    ),
    "Turkish": Script(
        "IŞIK ve ışık, İstanbul'da ıslak",
        ["isik", "IŞIK", "ışık", "istanbul", "ISTANBUL", "ıslak", "islak"],
        ["asik", "tanbul"],
    ),
    "Greek": Script(
        "Συνάντηση της ΟΔΟΣ και οδός", ["συναντηση", "ΣΥΝΑΝΤΗΣΗ", "οδος", "ΟΔΟΣ", "οδόσ"], ["ναντηση", "οδοι"]
    ),
    "Devanagari": Script("कुत्ते की बैठक पुस्तकालय में २०२४", ["कुत्ते", "बैठक", "पुस्तक", "2024"], ["कितने", "बठक", "ठक", "2025"]),
    "Cyrillic": Script("Ґанок і ёлка, нарада в Києві", ["ганок", "елка", "києві", "НАРАДА"], ["анок", "рада"]),
    "mixed": Script(
        "東京tower2024で会いましょう",
        ["tower2024", "tower", "東京tower2024", "京tower", "会い", "東京", "2024で"[4:]],
        ["ower", "2024", "東2024", "会tower2024え"],
    ),
    "format characters": Script(
        "soft\u00adhyphen \u200ebidi\u200f \ufeffbom zero\u200dwidth नमस्\u200dते 東\u200b京",
        ["softhyphen", "soft\u00adhyphen", "s\u200doft", "bidi", "\ufeffbom", "zerowidth", "नमस्ते", "東京"],
        ["hyphen", "width"],
    ),
    "full and half width": Script("ＦＵＬＬ ﾊﾟﾝ １２３", ["full", "パン", "ﾊﾟﾝ", "123", "ｆｕｌｌ"], ["ハン", "バン"]),
}


@pytest.fixture(scope="module")
def written(api):
    """A project in which each text is the name of a task, the description of another, and a comment on a third."""
    project = create(api, "projects", name="Scripts")["id"]
    bodies = [
        body
        for text, *_ in SCRIPTS.values()
        for body in ({"name": text}, {"name": text[:1], "description": f"- {text}\n"})
    ]
    create(api, "tasks/bulk", project_id=project, tasks=bodies)
    task = create(api, "tasks", name="-", project_id=project)["id"]
    for text, *_ in SCRIPTS.values():
        create(api, "comments", task_id=task, body=f"> {text}")
    return project, task


def places(api, written, q: str, text: str) -> list[str]:
    """Where a search finds a text."""
    project, task = written
    tasks = listed(api, "tasks", project_id=project, q=q)
    comments = listed(api, "comments", task_id=task, q=q)
    return [
        *("name" for one in tasks if one["name"] == text),
        *("description" for one in tasks if one["description"] == f"- {text}\n"),
        *("comment" for one in comments if one["body"] == f"> {text}"),
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_of_a_script_are_found_wherever_they_are_written(api, written, script):
    text, found, missed = SCRIPTS[script]
    everywhere = ["name", "description", "comment"]
    assert {q: places(api, written, q, text) for q in found} == dict.fromkeys(found, everywhere)
    assert {q: places(api, written, q, text) for q in missed} == {q: [] for q in missed}


def test_a_search_in_chinese_finds_nothing_but_what_has_the_words(api, a_project):
    create(
        api,
        "tasks/bulk",
        project_id=a_project["id"],
        tasks=[{"name": name} for name in ("东京", "北京", "东北", "京东")],
    )
    assert names(api, "tasks", project_id=a_project["id"], q="东京") == ["东京"]
    assert names(api, "tasks", project_id=a_project["id"], q="京") == ["东京", "北京", "京东"]


def test_a_word_is_found_deep_in_a_long_text_without_spaces(api, a_project):
    long = "".join(chr(0x4E00 + number * 7 % 3000) for number in range(5_000))
    create(api, "tasks", name="Long", description=f"{long}終わり", project_id=a_project["id"])
    for q in ("終わり", long[:40], long[4_090:4_110], long[-3:]):
        assert names(api, "tasks", project_id=a_project["id"], q=q) == ["Long"], q


@pytest.fixture
def socket(server):
    opened = WebSocket(server.url, server.key)
    yield opened
    opened.close()


@pytest.mark.parametrize("q", ["準備", "備", "lodz", "ข้าว", "자료"])
def test_a_list_that_stays_current_finds_what_the_list_finds(api, socket, a_project, q):
    socket.send(
        type="subscribe", id="q", query={"resource": "tasks", "filter": {"project_id": a_project["id"]}, "q": q}
    )
    assert socket.until_type("snapshot", subscription="q")["items"] == []
    for name in ("会議", "회의", "ข่าว", "Lądz"):
        create(api, "tasks", name=name, project_id=a_project["id"])
    for text in ("会議の準備をする", "Łódź", "ทำข้าวผัด", "회의자료를"):
        create(api, "tasks", name="Found", description=text, project_id=a_project["id"])
    [task] = listed(api, "tasks", project_id=a_project["id"], q=q)
    assert socket.until_type("added")["item"] == task


def test_a_list_that_stays_current_takes_a_sentence_without_spaces(api, socket, a_project):
    sentence = "明日の朝九時から東京の本社で予算について話し合う会議の準備をする"
    query = {"resource": "tasks", "filter": {"project_id": a_project["id"]}, "q": sentence}
    socket.send(type="subscribe", id="q", query=query)
    socket.until_type("snapshot", subscription="q")
    task = create(api, "tasks", name=f"さて、{sentence}", project_id=a_project["id"])
    assert socket.until_type("added")["item"] == task


# ---- order -----------------------------------------------------------------------------------------------------------

SORTED = [
    "(draft)",
    "007",
    "7",
    "12",
    "Äpfel",
    "Apfel 2",
    "apfel 2",
    "Äpfel 2",
    "Apfel 10",
    "éclair",
    "Łódź",
    "lodz 1",
    "Mango",
    "Ñandú",
    "Öl",
    "Strasse",
    "Straße",
    "straße",
    "Task",
    "Task 1",
    "Task 2",
    "Task 2b",
    "Task 10",
    "Task 100",
    "task １０１",
    "Task 1000000000",
    "Task 20000000000000000000",
    "Über",
    "Zebra",
    "Οδός",
    "Ёлка",
    "Жук",
    "שלום",
    "تفاح",
    "かき",
    "がき",
    "東京 2",
    "東京 10",
    "가나",
    "나비",
]


def test_names_are_sorted_as_people_sort_them(api, a_project):
    shuffled = [SORTED[number * 7 % len(SORTED)] for number in range(len(SORTED))]
    assert sorted(shuffled) == sorted(SORTED)
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=[{"name": name} for name in shuffled])
    question: dict[str, Any] = {"project_id": a_project["id"], "sort": "name"}
    assert names(api, "tasks", **question) == SORTED
    assert names(api, "tasks", **question | {"sort": "-name"}) == SORTED[::-1]
    for limit in (1, 3):
        paged = [task["name"] for page in pages(api, "tasks", limit=limit, **question) for task in page]
        assert paged == SORTED


@pytest.mark.parametrize("resource", ["projects", "templates", "users", "workspaces", "api-keys"])
def test_all_that_has_a_name_is_sorted_so(api, server, resource):
    mark = f"{resource} sorted"
    wanted = [f"{mark} {rest}" for rest in ("Abc 2", "Ábc 2", "abc 10", "łap", "Lava")]
    made: list[Any] = []
    for name in reversed(wanted):
        more: dict[str, Any] = {
            "users": {"email": f"{len(made)}-sorted@example.com"},
            "api-keys": {"scopes": ["tasks:read"]},
        }
        made.append(create(api, resource, name=name, **more.get(resource, {})))
    assert names(api, resource, sort="name", **{"name[$prefix]": mark}) == wanted
    for one in made:
        assert api.delete(f"/v1/{resource}/{one['id']}").status_code in (204, 403)


def test_a_name_that_changes_changes_its_place(api, a_project):
    ids = [create(api, "tasks", name=name, project_id=a_project["id"])["id"] for name in ("Task 10", "Task 2")]
    question = {"project_id": a_project["id"], "sort": "name"}
    assert names(api, "tasks", **question) == ["Task 2", "Task 10"]
    assert api.patch(f"/v1/tasks/{ids[0]}", json={"name": "Åsk"}).status_code == 200
    assert names(api, "tasks", **question) == ["Åsk", "Task 2"]
    assert api.patch(f"/v1/tasks/{ids[0]}", json={"name": "Zoo"}).status_code == 200
    assert names(api, "tasks", **question) == ["Task 2", "Zoo"]
