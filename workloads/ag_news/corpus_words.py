"""The vocabulary of the built-in news corpus: invented names, topical words, neutral frames.

Every place, person, team and company is made up. A phrase that stands under more than one topic
says less about the topic than the others; verbs are never shared, so that each clause has a topic.
No phrase holds a comma or a full stop, because these mark off the clauses.
"""

import dataclasses


def _phrases(text: str) -> tuple[str, ...]:
    """Split a block of comma-separated phrases; line breaks count as spaces."""
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


@dataclasses.dataclass(frozen=True)
class Topic:
    """The phrases from which the clauses of one topic are made.

    Attributes:
        agents: Who acts.
        verbs: What they do, in the past tense.
        objects: What they do it to.
    """

    agents: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases of the topic."""
        return self.agents + self.verbs + self.objects


WORLD = Topic(
    agents=_phrases("""
        president, foreign minister, ambassador, parliament, rebels, peacekeepers, senator,
        governor, king, general, diplomats, mayor, refugees, troops, opposition, envoy,
        militia, voters, bishop, judges, army, cabinet, monitors, protesters, police,
        delegates, premier, council"""),
    verbs=_phrases("""
        ratified, vetoed, condemned, denounced, governed, besieged, occupied, pardoned,
        annexed, liberated, exiled, mediated, legislated, boycotted, petitioned, decreed,
        shelled, evacuated"""),
    objects=_phrases("""
        ceasefire, border treaty, referendum, embassy, summit, constitution, election, coup,
        province, hostage talks, peace plan, refugee camp, curfew, uprising, sanctions,
        capital, amnesty, tribunal, monarchy, ballot, invasion, frontier, disarmament,
        extradition, coalition, border inquiry, strike, deal, talks, campaign, court, drive,
        attack, defence, security, record, mission, launch, palace, earthquake, famine, flood
        relief, bombing, siege, human rights, martial law"""),
)

SPORTS = Topic(
    agents=_phrases("""
        striker, goalkeeper, coach, captain, sprinter, midfielder, quarterback, pitcher,
        referee, team, champion, rookie, swimmer, cyclist, wrestler, batsman, skipper,
        defender, manager, fans, squad, rowers, gymnast, boxer, winger, hosts, visitors,
        umpire"""),
    verbs=_phrases("""
        outplayed, dribbled through, tackled, outscored, sprinted in, rallied in, coached,
        headed, trained for, qualified for, refereed, volleyed in, dominated, clinched,
        hurdled, equalised in, forfeited, dived in"""),
    objects=_phrases("""
        cup final, title race, derby, relay, penalty shootout, playoffs, season opener, home
        game, inning, semifinal, tournament, marathon, world cup, qualifier, league, stadium,
        medal, overtime, touchdown, free kick, home run, hat trick, grand slam, doping test,
        batting order, scrum, olympics, strike, deal, transfer, campaign, court, drive,
        attack, defence, record, pass, race, contract, trophy, halftime, injury time, locker
        room, heavyweight bout, tie break, wicket"""),
)

BUSINESS = Topic(
    agents=_phrases("""
        bank, investors, retailer, shareholders, airline, brokers, insurer, lender, carmaker,
        creditors, treasurer, economists, brewer, grocer, traders, auditors, directors,
        exporters, buyers, union, manager, company, regulator, startup, chairman, wholesaler,
        landlords, hedge fund"""),
    verbs=_phrases("""
        financed, priced, invested in, audited, insured, acquired, refinanced, liquidated,
        underwrote, outbid, mortgaged, subsidised, invoiced, discounted, taxed, monetised,
        divested, amortised"""),
    objects=_phrases("""
        merger, bond sale, quarterly profit, dividend, interest rates, inflation, stock
        market, takeover, earnings, buyout, bankruptcy, oil price, tariffs, payroll, pension
        fund, retail sales, debt, revenue, public offering, layoffs, supply chain, consumer
        spending, trade deficit, currency, strike, deal, talks, contract, security, record,
        transfer, launch, network, platform, chip orders, mortgage, factory output, warehouse,
        franchise, balance sheet, wages, commodities, crude"""),
)

SCI_TECH = Topic(
    agents=_phrases("""
        engineers, astronomers, programmers, researchers, laboratory, biologists, hackers,
        physicists, developers, chemists, robot, satellite, botanists, inventor, users,
        geneticist, astronauts, browser, company, startup, professor, scientists, coders,
        crew, technicians, algorithm, rover, telescope"""),
    verbs=_phrases("""
        debugged, patched, simulated, sequenced, prototyped, decoded, encrypted, downloaded,
        cloned, orbited, photographed, recalibrated, digitised, programmed, hacked, magnified,
        dissected, beamed"""),
    objects=_phrases("""
        software, space probe, operating system, virus, genome, web browser, search engine,
        microchip, supercomputer, fossil, asteroid, broadband, password, laser, spam filter,
        vaccine, gadget, server, dark matter, open source, wireless, handset, stem cells,
        particle, data centre, ozone layer, comet, network, platform, chip orders, mission,
        launch, race, security, attack, drive, record, pass, video game, music player,
        spacecraft, fuel cell, antibody, glacier, malware, quantum"""),
)

TOPICS = (WORLD, SPORTS, BUSINESS, SCI_TECH)

PLACES = _phrases("""
    Brenholt, Norvasia, Keldmoor, Ostravel, Tarnwick, Velmaria, Quillon, Zarenburg, Fennmark,
    Lorvale, Mirefield, Dunhaven, Caldria, Westmarch, Arvenia, Pellstad, Ilmara, Rothwyn,
    Sundervik, Hallowick, Telmora, Grenwald, Ashkara, Lissemouth""")
PEOPLE = _phrases("""
    Kester, Varrow, Ilvane, Dorne, Maskell, Tolliver, Brandtner, Oyelu, Sarkin, Fenwether,
    Quist, Rademar, Lindqvar, Okonde, Petrask, Yarrowby, Zimmel, Castanel, Moritane, Belk""")
ORGANISATIONS = _phrases("""
    Corvidex, Lanternby, Meridox, Tidewell, Harbourline, Ostrix, Pallomar, Vintrel, Brightfen,
    Callowan, Redmarsh, Stonequay""")
DAYS = _phrases("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")

SOURCES = PLACES + PEOPLE

AGENTS = (
    "the {agent}",
    "the local {agent}",
    "the veteran {agent}",
    "the rival {agent}",
    "the new {agent}",
    "the {organisation} {agent}",
)
OBJECTS = (
    "the {0} and the {1}",
    "its {0} after the {1}",
    "the {0} over the {1}",
    "the latest {0} and {1}",
    "the planned {0} and its {1}",
    "further {0} before the {1}",
)
CIRCUMSTANCES = (
    "in {place}",
    "near {place}",
    "on {day}",
    "last {day}",
    "after all",
    "once again",
    "this week",
)
LEADING = ("While", "Although", "Despite claims that", "Leaving aside that")
# A third of the clauses begin with their circumstance, which says where or when.
ORDERS = ("{circumstance} {deed}", "{deed} {circumstance}", "{deed} {circumstance}")
TRAILING = ("whereas", "even though", "overshadowing news that", "long before")
