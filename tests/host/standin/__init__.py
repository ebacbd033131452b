"""A stand-in for the Azure Functions host, as far as a custom handler can tell the difference.

It is made from the documented and published behaviour of the host (how it starts and watches the handler,
proxies HTTP, wraps queue and timer deliveries in an envelope, reads the answers, redelivers and poisons), so
that the handler can be driven end to end where the real host cannot be installed. It runs an app folder like
``func start``::

    PYTHONPATH=tests/host python -m standin --app-root . --port 7071

What it can't show, and what therefore still needs one run on the real thing:

* that the documented behaviour is what a given host version, plan or region does;
* the platform in front of the host: TLS, App Service authentication and Static Web Apps are modelled only by
  the headers they set and strip, with a cookie that names a made-up identity;
* scaling: there is one instance, and no scale controller, drain mode or slot swap;
* extension bundles, triggers other than HTTP, queue and timer, bindings other than HTTP and queue output,
  the older buffered forwarding mode, ``customHandler.http.routes`` and host-level retry policies
  (an app that asks for one of these is refused, not approximated);
* performance.

Names follow the host's own: *invocation* for one call of one function, *handler* for our process.
"""

HOST_VERSION = "4.1052.200.26400"
"""What is sent as ``X-Azure-Functions-HostVersion``; nothing may depend on its value."""
