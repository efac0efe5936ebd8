"""The paper's six groups of prompts."""

GROUPS = {
    "names": "prompts/names/first-names.json",
    "countries": "prompts/countries",
    "day-date": "prompts/day-date",
    "fruits": "prompts/fruits",
    "numbers": "prompts/numbers",
    "occupations": "prompts/occupations",
}
