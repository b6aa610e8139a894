"""Notification targets that reach outside of the fleet."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.notifications.mail import MailServer, MailTarget
    from fleet.adapters.notifications.webhook import WebhookTarget, signature
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = ["MailServer", "MailTarget", "WebhookTarget", "signature"]
