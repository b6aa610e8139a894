"""A tool: counts words of a file of the workspace."""

from fleet.kernel.errors import PolicyDenied
from fleet.tools.port import ToolContext
from fleet.tools.kit.parts import ToolParts, ToolPlugin
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.trees.tree import decode_tree


class WordCount:
    """Implements the port Tool over blobs alone."""

    name = "word_count"

    def __init__(self, parts: ToolParts) -> None:
        self._blobs = parts.blobs

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """The number of words; links of a workspace are never followed."""
        tree = decode_tree(await self._blobs.get(context.tree)) if context.tree else {}
        entry = tree.get(call.args["path"])
        if entry is None:
            return ToolOutcome(outcome="failed", reason="not_found", text=f"there is no {call.args['path']}")
        if entry.mode == "120000":
            raise PolicyDenied("it is a link: name the file", rule_id="path_outside")
        words = len((await self._blobs.get(entry.blob)).split())
        return ToolOutcome(outcome="succeeded", content={"words": words}, text=f"{words} words")


PLUGIN = ToolPlugin(
    name="word_count",
    declaration=[
        {
            "ops": {"count": {"path": "path"}},
            "access": "read",
            "scope": "workspace",
            "side_effects": "none",
            "effect": "PURE",
            "risk": "low",
            "approval": "never",
            "idempotency": "guaranteed",
            "timeout_s": 10,
            "output_limit_kb": 16,
        }
    ],
    make=WordCount,
)
